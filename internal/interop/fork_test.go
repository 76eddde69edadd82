//go:build linux || darwin

package interop

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// forking is an agent in Python that has a worker, forked by multiprocessing without an exec, and prints the worker's pid.
// plain knows nothing of forks; the other one is that of examples/python.
const (
	plainForking = `
import multiprocessing, socket, sys, time
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(b'{"type":"list_peers"}\n')
link.makefile().readline()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
worker.start()
print(worker.pid, flush=True)
sys.stdin.read()
`
	exampleForking = `
import asyncio, multiprocessing, sys, time
sys.path.insert(0, sys.argv[2])
import agent
async def main():
    mesh = agent.Agent(lambda *_: None)
    await mesh.open(sys.argv[1])
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    worker.start()
    print(worker.pid, flush=True)
    await mesh.list_peers()
    print("still here", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
`
)

// TestForkedWorker: an agent that is killed takes its sidecar with it, though a worker that it has forked lives on and has
// copies of its descriptors: the sidecar sees to that after a while, and at once with the example, which gives up its
// connection in the worker.
func TestForkedWorker(t *testing.T) {
	const seen = "another one holds its connection"
	python := kindNamed("Python")
	for name, script := range map[string]string{"plain": plainForking, "example": exampleForking} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			python.check(t)
			sidecar := startProcess(t, exec.Command(theSidecar(t)), []string{"SIGNALING_URL=ws://127.0.0.1:1/ws", "API_KEY=forking"})
			sidecar.awaitSocket(t)
			agent := exec.Command("python3", "-c", script, sidecar.socket, filepath.Join(root, "examples", "python"))
			if _, err := agent.StdinPipe(); err != nil { // which it reads
				t.Fatal(err)
			}
			out, err := agent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = agent.Process.Kill() })
			worker := 0
			lines := bufio.NewReader(out)
			if _, err := fmt.Fscanln(lines, &worker); err != nil {
				t.Fatalf("no worker: %v", err)
			}
			t.Cleanup(func() { _ = syscall.Kill(worker, syscall.SIGKILL) })
			if name == "example" { // the worker has not harmed our own connection
				if line, err := lines.ReadString('\n'); line != "still here\n" {
					t.Errorf("the agent says %q, %v", line, err)
				}
			}
			if err := agent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_, _ = agent.Process.Wait() // it was killed
			if err := sidecar.wait(); err != nil {
				t.Errorf("the sidecar: %v\n%s", err, sidecar.stderr)
			}
			if err := syscall.Kill(worker, 0); err != nil {
				t.Errorf("the worker has ended, so this shows nothing: %v", err)
			}
			if noticed := strings.Contains(sidecar.stderr.String(), seen); noticed != (name == "plain") {
				t.Errorf("it says %q: %t\n%s", seen, noticed, sidecar.stderr)
			}
		})
	}
}
