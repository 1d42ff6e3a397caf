package jetstream_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rossby-go/rossby/internal/natstest"
)

// proxy stands between a client and a server and loses what it is told to.
type proxy struct {
	listener net.Listener
	backend  string
	// loseReplies and loseRequests swallow everything of one direction.
	loseReplies, loseRequests atomic.Bool
	// losePublishes swallows commits on their way and lets everything else through.
	losePublishes atomic.Bool
	// fate, unless nil, says what happens to each append: to a transaction as a whole.
	fate atomic.Pointer[func() fate]
	// lost counts the bytes that were swallowed, lostAppends the appends on their way
	// of which something was.
	lost, lostAppends atomic.Int64
	// held counts the appends that are held back.
	held atomic.Int64
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
		if err != nil || !p.add(client) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		l := &lane{mute: map[string]bool{}}
		p.wg.Go(func() { p.requests(server, client, l) })
		p.wg.Go(func() { p.answers(client, server, l) })
	}
}

// add refuses while the proxy is down, so that cut misses nobody.
func (p *proxy) add(client net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down.Load() {
		return false
	}
	p.conns[client] = true
	return true
}

// has tells whether a client's connection has not been cut.
func (p *proxy) has(client net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[client]
}

// fate is what happens to an append.
type fate struct {
	// lose swallows the request, mute the answer.
	lose, mute bool
	// delay holds the request back, while others overtake it.
	delay time.Duration
}

// lane is one connection's appends: what becomes of each is decided once.
type lane struct {
	mu    sync.Mutex
	batch string
	last  fate
	// losing is set by the first commit that losePublishes swallows: the network may
	// heal while the connection still holds others.
	losing bool
	// mute are the inboxes whose next answer is swallowed.
	mute map[string]bool
}

func (l *lane) decide(p *proxy, f *frame) fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := f.header("Nats-Batch-Id")
	if batch == "" || batch != l.batch {
		l.losing = l.losing || p.losePublishes.Load()
		l.batch, l.last = batch, fate{lose: l.losing}
		if next := p.fate.Load(); next != nil {
			l.last = (*next)()
		}
	}
	if l.last.mute && f.reply != "" {
		l.mute[f.reply] = true
	}
	return l.last
}

func (l *lane) muted(subject string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer delete(l.mute, subject)
	return l.mute[subject]
}

// requests carries what a client sends, frame by frame.
func (p *proxy) requests(server, client net.Conn, l *lane) {
	type late struct {
		at    time.Time
		bytes []byte
	}
	queue := make(chan late, 1<<14)
	var mu sync.Mutex
	send := func(b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		_, err := server.Write(b)
		return err == nil
	}
	// What is held back is sent even when the client has given its connection up:
	// so does a slow network.
	sent := make(chan struct{})
	p.wg.Go(func() {
		defer close(sent)
		for f := range queue {
			if wait := time.Until(f.at); wait > 0 {
				<-time.After(wait)
			}
			send(f.bytes) // the connection may be gone
			p.held.Add(-1)
		}
	})
	defer func() { _ = server.Close() }()
	defer func() { close(queue); <-sent }()
	defer func() { _ = client.Close() }()
	r := bufio.NewReaderSize(client, 64<<10)
	lossy := false // A connection that has lost something is not whole again.
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		var what fate
		commit := strings.Contains(f.subject, ".event.") && !strings.HasPrefix(f.subject, "$")
		if commit {
			what = l.decide(p, f)
		}
		lossy = lossy || p.loseRequests.Load()
		switch {
		case what.lose || lossy:
			p.lost.Add(int64(len(f.bytes)))
			if commit && p.has(client) {
				p.lostAppends.Add(1)
			}
		case what.delay > 0:
			p.held.Add(1)
			queue <- late{time.Now().Add(what.delay), f.bytes}
		case !send(f.bytes):
			return
		}
	}
}

// answers carries what the server sends.
func (p *proxy) answers(client, server net.Conn, l *lane) {
	defer func() { _ = client.Close() }()
	r := bufio.NewReaderSize(server, 64<<10)
	lossy := false
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		if lossy = lossy || p.loseReplies.Load(); lossy || f.subject != "" && l.muted(f.subject) {
			p.lost.Add(int64(len(f.bytes)))
			continue
		}
		_, _ = client.Write(f.bytes) // a client that is gone may have appends on their way
	}
}

// frame is a line of the protocol with what belongs to it.
type frame struct {
	subject, reply string
	bytes          []byte
}

func readFrame(r *bufio.Reader) (*frame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	f := &frame{bytes: line}
	parts := strings.Fields(string(line))
	if len(parts) < 3 {
		return f, nil
	}
	sizes := 1 // the numbers at the end of the line
	switch strings.ToUpper(parts[0]) {
	case "HPUB", "HMSG":
		sizes = 2
	case "PUB", "MSG":
	default:
		return f, nil
	}
	f.subject = parts[1]
	if strings.HasSuffix(strings.ToUpper(parts[0]), "PUB") && len(parts) == 3+sizes {
		f.reply = parts[2]
	}
	size, err := strconv.Atoi(parts[len(parts)-1])
	if err != nil {
		return nil, err
	}
	f.bytes = append(f.bytes, make([]byte, size+2)...)
	_, err = io.ReadFull(r, f.bytes[len(line):])
	return f, err
}

// header is one of the frame's.
func (f *frame) header(name string) string {
	_, rest, found := strings.Cut(string(f.bytes), name+": ")
	if !found {
		return ""
	}
	value, _, _ := strings.Cut(rest, "\r")
	return value
}

// cut ends every connection of a client.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// heal ends the connections, which lost something, and loses no more. Nobody connects
// in between: what the server says first would be lost.
func (p *proxy) heal() {
	p.down.Store(true)
	p.cut()
	p.loseReplies.Store(false)
	p.loseRequests.Store(false)
	p.losePublishes.Store(false)
	p.lostAppends.Store(0)
	p.fate.Store(nil)
	p.down.Store(false)
}

// awaitLoss waits until an append was swallowed, since the network was whole: what
// else a client sends, such as its answer to a ping, is none.
func (p *proxy) awaitLoss(t *testing.T) {
	t.Helper()
	natstest.Eventually(t, "an append to lose", func() error {
		if p.lostAppends.Load() == 0 {
			return errors.New("are not there")
		}
		return nil
	})
}
