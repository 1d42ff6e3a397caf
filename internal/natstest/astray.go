package natstest

import (
	"bytes"
	"net"
	"sync/atomic"
)

// Astray dials connections on which messages go astray: nobody answers them, as nobody
// does while a stream has no leader. Somebody must listen to where they go, $XX.> or $XV.>
// in the place of $JS.> or $KV.>, or a server says that nobody does.
type Astray struct {
	// Subject begins with $JS. or $KV.; messages to what begins with it are meant.
	Subject string

	next, lost atomic.Int64
}

// Lose lets the next messages go astray, so many.
func (a *Astray) Lose(n int64) {
	a.lost.Store(0)
	a.next.Store(n)
}

// Lost is how many have gone astray since.
func (a *Astray) Lost() int64 { return a.lost.Load() }

// Dial implements nats.CustomDialer.
func (a *Astray) Dial(network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).Dial(network, address)
	return &astray{c, a}, err
}

type astray struct {
	net.Conn

	a *Astray
}

func (c *astray) Write(b []byte) (int, error) {
	meant := []byte("PUB " + c.a.Subject)
	if bytes.Contains(b, meant) && c.a.next.Load() > 0 {
		c.a.next.Add(-1)
		c.a.lost.Add(1)
		b = bytes.Replace(b, meant, aside(meant), 1)
	}
	return c.Conn.Write(b)
}

func aside(meant []byte) []byte {
	meant = bytes.Replace(meant, []byte(" $JS."), []byte(" $XX."), 1)
	return bytes.Replace(meant, []byte(" $KV."), []byte(" $XV."), 1)
}
