package natstest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

const (
	// Ports of tests lie below those that the system gives to outgoing
	// connections, and each process has a block of its own, so that tests of
	// several packages at once do not take one another's.
	firstPort    = 10_000
	portsOfBlock = 500
	blocks       = 44
)

// given counts the ports this process has handed out: between the search for a
// port and its use, nobody else may get it.
var given atomic.Int64 //nolint:gochecknoglobals // one process, one block of ports

// ports is a block: who listens on its first port owns it.
type ports struct {
	first int
	owner net.Listener // open as long as the process runs
	err   error
}

// block is the process's block. Two processes may have ids that would choose the same
// one: the second takes the next.
var block = sync.OnceValue(func() ports { //nolint:gochecknoglobals // likewise
	for i := range blocks {
		first := firstPort + (os.Getpid()+i)%blocks*portsOfBlock
		if l, err := listen(context.Background(), first); err == nil {
			return ports{first: first, owner: l}
		}
	}
	return ports{err: fmt.Errorf("none of %d blocks of ports is free", blocks)}
})

func listen(ctx context.Context, port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// Addr returns an address of 127.0.0.1 on which nobody listens, for servers that
// must come back under the same address.
func Addr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port(t)))
}

func port(t testing.TB) int {
	t.Helper()
	mine := block()
	if mine.err != nil {
		t.Fatalf("natstest: %v", mine.err)
	}
	for range portsOfBlock {
		p := mine.first + int(given.Add(1)%portsOfBlock)
		l, err := listen(t.Context(), p)
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
