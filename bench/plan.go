package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// The sizes at which bare pion is tried for its best throughput.
var pionBulkSizes = []int{16 << 10, 32 << 10, 64 << 10}

// localBulk is the size of the large messages between processes.
const localBulk = 64 << 10

func pionBulkName(size int) string { return fmt.Sprintf("bulk_pion_%dk_mbps", size>>10) }

// growthSizes are the numbers of agents of which the growth is shown. The last
// is the large mesh.
func growthSizes(o options) []int {
	return pick(o, []int{2, 4, 8, 16, 32}, []int{2, 4, 8, 12})
}

// plan returns all groups. Those that count allocations come first, while the
// process is small.
func plan(o options) []group {
	if o.wan {
		return wanPlan(o)
	}
	groups := []group{
		{"forward", pick(o, 9, 5), []side{
			newForward(o, "forward_codec", &codecForwarder{}),
			newForward(o, "forward_encoding_json", newJSONForwarder()),
		}},
		{"link rate", pick(o, 9, 5), []side{
			newFlow(o, "link_codec_per_s", openLinkCodec),
			newFlow(o, "link_raw_per_s", openRawLines),
		}},
		{"link round trip", pick(o, 5, 3), []side{
			newLatency(o, "rtt_unix_socket", openConnEcho(openUnix)),
			newLatency(o, "rtt_net_pipe", openConnEcho(openNetPipe)),
		}},
		{"broadcast", pick(o, 7, 3), []side{
			newFanout(o, "broadcast_16", broadcastOnce),
			newFanout(o, "send_16", sendToEach),
		}},
		{"round trip", pick(o, 15, 3), []side{
			newLatency(o, "rtt_pion", openPionEcho),
			newLatency(o, "rtt_inprocess", openMeshEcho(mesh.InProcess)),
			newLatency(o, "rtt_selfexec", openMeshEcho(mesh.SelfExec)),
			newLatency(o, "rtt_libp2p_webrtc", openP2PEcho(p2pWebRTC)),
			newLatency(o, "rtt_libp2p_quic", openP2PEcho(p2pQUIC)),
			newLatency(o, "rtt_nats", openNATSEcho),
		}},
		{"small messages", pick(o, 15, 3), []side{
			newFlow(o, "small_pion_per_s", openPionPipe(smallSize, pionKind{shared: true})),
			newFlow(o, "small_pion_blockwrite_per_s", openPionPipe(smallSize, pionKind{shared: true, blockWrite: true})),
			newFlow(o, "small_inprocess_per_s", openMeshPipe(mesh.InProcess, smallSize)),
			newFlow(o, "small_selfexec_per_s", openMeshPipe(mesh.SelfExec, smallSize)),
			newFlow(o, "small_libp2p_webrtc_per_s", openP2PPipe(p2pWebRTC)),
			newFlow(o, "small_libp2p_quic_per_s", openP2PPipe(p2pQUIC)),
			newFlow(o, "small_nats_per_s", openNATSPipe),
		}},
		{"bulk", pick(o, 15, 3), bulkSides(o)},
		{"requests under bulk", pick(o, 7, 2), []side{
			newUnderBulk("rtt_under_bulk", netpath.Conditions{}, o.span()/2, 3*o.span()),
			newUnderStream("rtt_under_stream", netpath.Conditions{}, o.span()/2, 3*o.span()),
		}},
		{"requests between processes", pick(o, 15, 3), []side{
			newLatency(o, "rtt_pion_two_processes", farPion(true).echoer),
			newLatency(o, "rtt_selfexec_two_processes", farMesh(mesh.SelfExec, webRTC).echoer),
			newLatency(o, "rtt_local", farMesh(mesh.InProcess, mesh.Network{}).echoer),
			newLatency(o, "rtt_local_selfexec", farMesh(mesh.SelfExec, mesh.Network{}).echoer),
			newLatency(o, "rtt_nats_processes", farOpener(farNATS).echoer),
			newLatency(o, "rtt_unix_socket_two_processes", farUnix(true).echoer),
		}},
		{"messages between processes", pick(o, 15, 3), []side{
			newFlow(o, "small_local_per_s", farMesh(mesh.InProcess, mesh.Network{}).pipe(smallSize)),
			newFlow(o, "small_local_selfexec_per_s", farMesh(mesh.SelfExec, mesh.Network{}).pipe(smallSize)),
			newFlow(o, "small_pion_two_processes_per_s", farPion(false).pipe(smallSize)),
			newFlow(o, "small_nats_processes_per_s", farOpener(farNATS).pipe(smallSize)),
		}},
		{"bulk between processes", pick(o, 15, 3), []side{
			newBulk(o, "bulk_local_mbps", localBulk, farMesh(mesh.InProcess, mesh.Network{}).pipe(localBulk)),
			newBulk(o, "bulk_unix_socket_mbps", localBulk, farUnix(false).pipe(localBulk)),
		}},
		{"requests under bulk on one host", pick(o, 7, 2), []side{
			newUnderBulkLocal("rtt_under_bulk_local", o.span()/2, 3*o.span()),
		}},
		{"ends on one host", pick(o, 11, 3), []side{
			newCloseIdle("close_idle_ms"),
			newDetectDead("detect_dead_local_ms"),
		}},
		{"open a stream", pick(o, 11, 3), []side{
			newStreamOpen(o, "stream_open_inprocess", openMeshStreams(mesh.InProcess)),
			newStreamOpen(o, "stream_open_selfexec", openMeshStreams(mesh.SelfExec)),
			newStreamOpen(o, "stream_open_gostream_quic", openGostreams(p2pQUIC)),
			newStreamOpen(o, "stream_open_gostream_tcp", openGostreams(p2pTCP)),
			newStreamOpen(o, "stream_open_tcp", openTCPStreams),
		}},
		{"10,000 streams", pick(o, 3, 1), []side{newStreamsSide(o, "streams_10000", 10_000)}},
		{"join", pick(o, 21, 7), []side{
			newPionJoin("join_pion_ms"),
			newMeshJoin("join_mesh_ms"),
		}},
		{"spawn", pick(o, 15, 5), []side{newSpawn("spawn_ready_ms")}},
	}
	for _, n := range growthSizes(o) {
		groups = append(groups, fleetGroup(o, n))
	}
	return groups
}

func bulkSides(o options) []side {
	sides := []side{
		newBulk(o, "bulk_mesh_64k_mbps", 64<<10, openMeshPipe(mesh.InProcess, 64<<10)),
		newBulk(o, "bulk_mesh_1m_mbps", 1<<20, openMeshPipe(mesh.InProcess, 1<<20)),
	}
	for _, size := range pionBulkSizes {
		sides = append(sides, newBulk(o, pionBulkName(size), size, openPionPipe(size, pionKind{shared: true})))
	}
	return append(sides,
		newBulk(o, "stream_inprocess_mbps", streamWrite, openStreamPipe(openMeshStreams(mesh.InProcess))),
		newBulk(o, "stream_selfexec_mbps", streamWrite, openStreamPipe(openMeshStreams(mesh.SelfExec))),
		newBulk(o, "stream_gostream_quic_mbps", streamWrite, openStreamPipe(openGostreams(p2pQUIC))),
		newBulk(o, "stream_gostream_tcp_mbps", streamWrite, openStreamPipe(openGostreams(p2pTCP))),
		newBulk(o, "stream_tcp_mbps", streamWrite, openStreamPipe(openTCPStreams)),
	)
}

func fleetGroup(o options, n int) group {
	idle, rounds := time.Duration(0), pick(o, 3, 1)
	if n == o.agents() {
		idle = pick(o, 10*time.Second, 4*time.Second) // whole intervals of ICE's keepalive, 2 s
		rounds = pick(o, 5, 1)                        // what this one gives differs most
	}
	sides := []side{newFleetSide(o, pionLinks, n, idle), newFleetSide(o, meshLinks, n, idle)}
	if n == o.agents() {
		sides = append(sides, newFleetSide(o, localLinks, n, idle))
	}
	return group{fmt.Sprintf("mesh of %d", n), rounds, sides}
}

// selected returns the part of the plan that the options ask for: every side
// that gives a number with a matching name, or one that a matching key needs.
func selected(o options) []group {
	groups := plan(o)
	if o.only == nil {
		return groups
	}
	var needed []string
	for _, k := range keys(o) {
		if o.only.MatchString(k.name) {
			needed = append(append(needed, k.ours), k.base...)
		}
	}
	wanted := func(name string) bool {
		return o.only.MatchString(name) || slices.Contains(needed, name)
	}
	for i := range groups {
		groups[i].sides = slices.DeleteFunc(groups[i].sides, func(s side) bool {
			return !slices.ContainsFunc(s.gives, wanted)
		})
	}
	return slices.DeleteFunc(groups, func(g group) bool { return len(g.sides) == 0 })
}
