package app

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream/console"
)

// How a line loses answers: it works for a while, then what the servers say goes
// nowhere for a moment, and then it is cut. What was asked in that moment is done,
// and nobody hears of it.
const (
	lineHolds = 2 * time.Second
	lineLoses = 250 * time.Millisecond
)

// Line is the parts' way to the servers, which people may break.
type Line struct {
	mu    sync.Mutex
	loses bool
	cuts  int
	conns map[*lossy]bool
}

// NewLine is a line that works.
func NewLine() *Line { return &Line{conns: map[*lossy]bool{}} }

// connect is a connection over the line to where the options lead.
func (l *Line) connect(o nats.Options) (*nats.Conn, error) {
	if o.InProcessServer != nil {
		o.InProcessServer = piped{l, o.InProcessServer}
	} else {
		o.CustomDialer = dialled{l, o.Timeout}
	}
	return o.Connect()
}

type piped struct {
	line *Line
	to   nats.InProcessConnProvider
}

func (p piped) InProcessConn() (net.Conn, error) { return p.line.over(p.to.InProcessConn()) }

type dialled struct {
	line    *Line
	timeout time.Duration
}

func (d dialled) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(d.timeout, nats.DefaultTimeout))
	defer cancel()
	return d.line.over(new(net.Dialer).DialContext(ctx, network, address))
}

func (l *Line) over(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	c := &lossy{Conn: conn, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	if l.loses {
		c.plan()
	}
	return c, nil
}

// lossy is a connection over the line. Its fields are the line's to guard.
type lossy struct {
	net.Conn

	line   *Line
	losing bool
	timer  *time.Timer
}

func (c *lossy) plan() {
	if c.timer == nil {
		c.timer = time.AfterFunc(lineHolds, c.lose)
	}
}

func (c *lossy) lose() {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.timer = nil; !c.line.loses {
		return
	}
	c.losing = true
	c.line.cuts++
	c.timer = time.AfterFunc(lineLoses, func() { _ = c.Close() })
}

func (c *lossy) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil {
			return n, err
		}
		c.line.mu.Lock()
		losing := c.losing
		c.line.mu.Unlock()
		if !losing {
			return n, nil
		}
	}
}

func (c *lossy) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// The positions of the line's switch.
const (
	works = "works"
	loses = "loses answers"
)

func (l *Line) set(option string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loses = option == loses
	for c := range l.conns {
		if l.loses {
			c.plan()
		} else if !c.losing && c.timer != nil {
			c.timer.Stop()
			c.timer = nil
		}
	}
}

func (l *Line) state() (option, note string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loses {
		return loses, fmt.Sprintf("cut %d times", l.cuts)
	}
	if l.cuts > 0 {
		return works, fmt.Sprintf("it was cut %d times", l.cuts)
	}
	return works, ""
}

func (l *Line) asSwitch() console.Switch {
	return console.Switch{
		Name: "line", Group: "Network", Title: "Line of the modules", Options: []string{works, loses},
		Help: "Every two seconds what the servers answer is lost, then the line is cut: commits are stored whose " +
			"acknowledgement nobody hears. Each module has to find out what it did.",
		State: l.state,
		Set: func(_ context.Context, option string) error {
			l.set(option)
			return nil
		},
	}
}
