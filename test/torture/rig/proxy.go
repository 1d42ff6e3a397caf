package rig

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const dialTimeout = 2 * time.Second

// Proxy is an address in front of another one. What passes can be disturbed.
type Proxy struct {
	target   string
	listener net.Listener
	done     chan struct{}
	running  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when something below changes
	pairs   map[*pair]bool
	cut     bool
	hold    bool
	deaf    bool
	delay   time.Duration
	// acks and requests are the shares of acknowledgements and of publishes that are
	// lost.
	acks, requests float64
	rng            *rand.Rand
	lost           int
}

// pair is a connection through the proxy.
type pair struct {
	client, server net.Conn
	torn           bool // bytes of it were dropped
}

func (c *pair) close() { _, _ = c.client.Close(), c.server.Close() }

// NewProxy listens on a free port of 127.0.0.1.
func NewProxy(ctx context.Context, target string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		target: target, listener: l, done: make(chan struct{}), changed: make(chan struct{}), pairs: map[*pair]bool{},
	}
	p.running.Go(p.serve)
	return p, nil
}

// Addr is the proxy's address.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	close(p.done)
	_ = p.listener.Close()
	p.set(func() { p.closePairs(func(*pair) bool { return true }) })
	p.running.Wait()
}

// Cut closes every connection and lets none through until Heal.
func (p *Proxy) Cut() {
	p.set(func() {
		p.cut = true
		p.closePairs(func(*pair) bool { return true })
	})
}

// Hold keeps back what passes, in both directions, until Heal: a partition, as TCP
// knows it.
func (p *Proxy) Hold() { p.set(func() { p.hold = true }) }

// Deafen drops what servers answer until Heal, which closes the connections that
// have lost something.
func (p *Proxy) Deafen() { p.set(func() { p.deaf = true }) }

// Lose drops a share of what servers acknowledge, and a share of what clients
// publish, until Heal. Everything else passes. The seed decides which.
func (p *Proxy) Lose(acks, requests float64, seed uint64) {
	p.set(func() { p.acks, p.requests, p.rng = acks, requests, rand.New(rand.NewPCG(seed, 0)) })
}

// Lost is how many messages were dropped.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Delay makes everything wait for so long.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Heal ends every disturbance.
func (p *Proxy) Heal() {
	p.set(func() {
		p.cut, p.hold, p.deaf, p.delay, p.acks, p.requests = false, false, false, 0, 0, 0
		p.closePairs(func(c *pair) bool { return c.torn })
	})
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) closePairs(which func(*pair) bool) {
	for c := range p.pairs {
		if which(c) {
			c.close()
			delete(p.pairs, c)
		}
	}
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.join(client) })
	}
}

func (p *Proxy) join(client net.Conn) {
	d := net.Dialer{Timeout: dialTimeout}
	server, err := d.DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server}
	p.mu.Lock()
	select {
	case <-p.done:
		p.mu.Unlock()
		c.close()
		return
	default:
	}
	if p.cut {
		p.mu.Unlock()
		c.close()
		return
	}
	p.pairs[c] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, server, client, false) })
	both.Go(func() { p.pump(c, client, server, true) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// pump copies until either side closes, message by message. Down is what the server
// says.
func (p *Proxy) pump(c *pair, to, from net.Conn, down bool) {
	defer c.close()
	in, out := bufio.NewReaderSize(from, 64<<10), bufio.NewWriterSize(to, 64<<10)
	var frame []byte
	for {
		var err error
		if frame, err = readFrame(in, frame[:0]); err != nil {
			return
		}
		pass, ok := p.wait(c, down)
		if !ok {
			return
		}
		if !pass || p.drops(frame, down) {
			continue
		}
		if _, err := out.Write(frame); err != nil {
			return
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return
			}
		}
	}
}

// drops tells whether a message shall be lost.
func (p *Proxy) drops(frame []byte, down bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	share := p.requests
	if down {
		share = p.acks
	}
	if share == 0 || !losable(frame, down) || p.rng.Float64() >= share {
		return false
	}
	p.lost++
	return true
}

// wait returns when bytes may go on: pass tells whether they shall.
func (p *Proxy) wait(c *pair, down bool) (pass, ok bool) {
	for {
		p.mu.Lock()
		hold, delay, changed := p.hold, p.delay, p.changed
		if p.deaf && down || c.torn && down {
			c.torn = true
			p.mu.Unlock()
			return false, true
		}
		p.mu.Unlock()
		var late <-chan time.Time
		switch {
		case hold:
		case delay > 0:
			late = time.After(delay)
		default:
			return true, true
		}
		select {
		case <-p.done:
			return false, false
		case <-late:
			return true, true
		case <-changed:
		}
	}
}
