package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// jobEnv holds the job of a forked copy of this program. What is counted for a
// whole process, CPU time or memory, is counted in one of its own.
const jobEnv = "BENCH_JOB"

// A job is one of its fields.
type job struct {
	Fleet      *fleetJob   `json:",omitempty"`
	Discard    *discardJob `json:",omitempty"`
	Streams    *streamsJob `json:",omitempty"`
	Far        *farJob     `json:",omitempty"`
	CPUProfile string      `json:",omitempty"`
}

// command prepares a copy of this program for a job. Its stderr is ours.
func (j job) command(ctx context.Context) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), jobEnv+"="+string(raw))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// run has a copy do the job, and reads its result.
func (j job) run(ctx context.Context, result any) error {
	cmd, err := j.command(ctx)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, result)
	}
	if err != nil {
		return fmt.Errorf("forked copy: %w", err)
	}
	return nil
}

// childMain does the job of a forked copy and returns true. In any other process
// it returns false at once.
func childMain() bool {
	raw := os.Getenv(jobEnv)
	if raw == "" {
		return false
	}
	if err := work(raw); err != nil {
		fmt.Fprintln(os.Stderr, "bench: forked copy:", err)
		os.Exit(1)
	}
	return true
}

func work(raw string) error {
	var j job
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return fmt.Errorf("%s: %w", jobEnv, err)
	}
	stop, err := profile(j.CPUProfile)
	if err != nil {
		return err
	}
	defer stop()
	switch {
	case j.Fleet != nil:
		return j.Fleet.work(os.Stdout)
	case j.Discard != nil:
		return j.Discard.work(os.Stdin, os.Stdout)
	case j.Streams != nil:
		return j.Streams.work(os.Stdout)
	case j.Far != nil:
		return j.Far.work(os.Stdin, os.Stdout)
	}
	return fmt.Errorf("%s: no job in %s", jobEnv, raw)
}
