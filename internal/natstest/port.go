package natstest

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

const (
	// Ports of tests lie below those that the system gives to outgoing
	// connections, and each process has a block of its own, so that tests of
	// several packages at once do not take one another's.
	firstPort    = 10_000
	portsOfBlock = 200
	blocks       = 110
)

// given counts the ports this process has handed out: between the search for a
// port and its use, nobody else may get it.
var given atomic.Int64 //nolint:gochecknoglobals // one process, one block of ports

// Addr returns an address of 127.0.0.1 on which nobody listens, for servers that
// must come back under the same address.
func Addr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port(t)))
}

func port(t testing.TB) int {
	t.Helper()
	block := firstPort + os.Getpid()%blocks*portsOfBlock
	for range portsOfBlock {
		p := block + int(given.Add(1)%portsOfBlock)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatalf("natstest: close a listener: %v", err)
		}
		return p
	}
	t.Fatal("natstest: found no free port")
	return 0
}
