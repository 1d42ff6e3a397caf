package projection_test

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// proxy is a TCP connection to a server whose directions can be held back.
type proxy struct {
	url string

	mu       sync.Mutex
	cond     *sync.Cond
	up, down bool
}

func newProxy(t testing.TB, url string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: "nats://" + l.Addr().String()}
	p.cond = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	var conns []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		p.hold(false, false)
		p.mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = client.Close()
				return
			}
			if tcp, ok := server.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(64 << 10) // what is held back is soon felt
			}
			p.mu.Lock()
			conns = append(conns, client, server)
			p.mu.Unlock()
			wg.Go(func() { p.copy(server, client, &p.up) })
			wg.Go(func() { p.copy(client, server, &p.down) })
		}
	})
	return p
}

// hold holds back what the client sends, and what it is sent.
func (p *proxy) hold(up, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.down = up, down
	p.cond.Broadcast()
}

func (p *proxy) copy(to, from net.Conn, held *bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for *held {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
