package jetstream_test

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// proxy stands between a client and a server and loses what it is told to.
type proxy struct {
	listener net.Listener
	backend  string
	// loseReplies and loseRequests swallow bytes of one direction. A connection
	// that lost some must be cut afterwards: the rest of it makes no sense.
	loseReplies, loseRequests atomic.Bool
	// lost counts the bytes that were swallowed.
	lost atomic.Int64
	// down lets nobody in.
	down atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, backend string) *proxy {
	t.Helper()
	u, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, backend: u.Host, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.down.Store(true)
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.backend)
		if err != nil || !p.add(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		p.wg.Go(func() { p.pipe(server, client, &p.loseRequests) })
		p.wg.Go(func() { p.pipe(client, server, &p.loseReplies) })
	}
}

// add refuses while the proxy is down, so that cut misses nobody.
func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down.Load() {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *proxy) pipe(to io.WriteCloser, from io.ReadCloser, lose *atomic.Bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if lose.Load() {
			p.lost.Add(int64(n))
		} else if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// cut ends every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// heal ends the connections that lost something and loses no more.
func (p *proxy) heal() {
	p.cut()
	p.loseReplies.Store(false)
	p.loseRequests.Store(false)
	p.down.Store(false)
}

// awaitLoss waits until something was swallowed.
func (p *proxy) awaitLoss(t *testing.T) {
	t.Helper()
	natstest.Eventually(t, "bytes to lose", func() error {
		if p.lost.Load() == 0 {
			return errors.New("are not there")
		}
		return nil
	})
}
