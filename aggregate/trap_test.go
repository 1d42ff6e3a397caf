package aggregate_test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// point is a place where an instance dies: at the nth message of a kind that it
// sends once it has begun to handle an event, before the message leaves or after.
type point struct {
	Kind  string
	N     int
	After bool
}

func (p point) String() string {
	when := "Before"
	if p.After {
		when = "After"
	}
	return when + "-" + p.Kind + "-" + strconv.Itoa(p.N)
}

// The kinds of messages that an instance's loop consists of.
const (
	sendsLoad   = "Load"   // of a target, from any replica
	sendsAsk    = "Ask"    // of the leader
	sendsAppend = "Append" // of a decision: before it is after the deciding
	sendsTimer  = "Timer"
	sendsRecord = "Record" // of the event as done, after its handler returned
)

// trap is the wire of an instance that dies at a point. Nothing leaves it then and
// nothing arrives, as if the process had been killed: what the instance still
// does, such as cleaning up, nobody sees.
type trap struct {
	store string
	at    point
	// die is called at the point, instead of cutting the wire.
	die func()

	mu       sync.Mutex
	armed    bool // an event is being handled
	returned bool // its handler has returned
	dead     bool
	after    bool // dead as soon as something arrives
	sent     []string
	died     chan struct{}
}

func newTrap(store string, at point) *trap {
	return &trap{store: store, at: at, died: make(chan struct{})}
}

func (t *trap) arm()     { t.mu.Lock(); t.armed = true; t.mu.Unlock() }
func (t *trap) release() { t.mu.Lock(); t.returned = true; t.mu.Unlock() }

// points are those of what was sent.
func (t *trap) points() []point {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := map[string]int{}
	var out []point
	for _, kind := range t.sent {
		n[kind]++
		if kind == sendsRecord && n[kind] > 1 {
			continue // renewals of the lease
		}
		out = append(out, point{kind, n[kind], false}, point{kind, n[kind], true})
	}
	return out
}

func (t *trap) Dial(network, address string) (net.Conn, error) {
	t.mu.Lock()
	dead := t.dead
	t.mu.Unlock()
	if dead {
		return nil, net.ErrClosed
	}
	c, err := new(net.Dialer).Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &trapped{Conn: c, trap: t}, nil
}

// kind is what a message to a subject is.
func (t *trap) kind(subject string) string {
	for _, k := range []struct{ prefix, kind string }{
		{"$JS.API.DIRECT.GET." + t.store + ".", sendsLoad}, {"$JS.API.STREAM.MSG.GET." + t.store, sendsAsk},
		{t.store + ".event.", sendsAppend}, {t.store + ".timer.set.", sendsTimer},
		{"$KV." + t.store + "__followers.", sendsRecord},
	} {
		if strings.HasPrefix(subject, k.prefix) {
			return k.kind
		}
	}
	return ""
}

// sends tells whether the message may leave.
func (t *trap) sends(subject string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	kind := t.kind(subject)
	if t.dead || kind == "" || !t.armed || kind == sendsRecord && !t.returned {
		return !t.dead
	}
	t.sent = append(t.sent, kind)
	n := 0
	for _, k := range t.sent {
		if k == kind {
			n++
		}
	}
	if kind != t.at.Kind || n != t.at.N {
		return true
	}
	if t.at.After {
		t.after = true
		return true
	}
	t.kill()
	return false
}

func (t *trap) kill() {
	if t.die != nil {
		t.die()
	}
	t.dead = true
	close(t.died)
}

// dies waits until the instance is dead. An instance that had to ask again, or handled
// its event twice, passes points that the next one does not: that one dies when its
// event is recorded as done.
func (t *trap) dies(tb testing.TB) {
	tb.Helper()
	natstest.Eventually(tb, "the instance dies", func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.dead && slices.Contains(t.sent, sendsRecord) && t.at.Kind != sendsRecord {
			tb.Logf("%v was not reached: %v", t.at, t.sent)
			t.kill()
		}
		if !t.dead {
			return fmt.Errorf("it lives: %v", t.sent)
		}
		return nil
	})
}

// arrives tells whether what was received may be seen.
func (t *trap) arrives() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.after && !t.dead {
		t.kill()
	}
	return !t.dead
}

// trapped is a connection that watches what the client says.
type trapped struct {
	net.Conn

	trap *trap
	rest []byte // of a message that is not complete
}

func (c *trapped) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || c.trap.arrives() {
			return n, err
		}
	}
}

// Write passes on whole messages.
func (c *trapped) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for len(c.rest) > 0 {
		line, _, found := bytes.Cut(c.rest, []byte("\r\n"))
		if !found {
			break
		}
		size := len(line) + 2
		fields := bytes.Fields(line)
		may := true
		if op := string(fields[0]); op == "PUB" || op == "HPUB" {
			body, err := strconv.Atoi(string(fields[len(fields)-1]))
			if err != nil {
				return 0, err
			}
			if size += body + 2; len(c.rest) < size {
				break
			}
			may = c.trap.sends(string(fields[1]))
		}
		c.trap.mu.Lock()
		may = may && !c.trap.dead
		c.trap.mu.Unlock()
		if may {
			if _, err := c.Conn.Write(c.rest[:size]); err != nil {
				return 0, err
			}
		}
		c.rest = c.rest[size:]
	}
	return len(b), nil
}
