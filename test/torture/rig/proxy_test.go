package rig_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/test/torture/rig"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

// echo answers each line with itself, and is reached through a proxy.
func echo(t *testing.T) (*rig.Proxy, func() (net.Conn, *bufio.Reader)) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer func() { _ = c.Close() }()
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					_, _ = c.Write([]byte(line))
				}
			})
		}
	})
	p, err := rig.NewProxy(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		_ = l.Close()
		served.Wait()
	})
	return p, func() (net.Conn, *bufio.Reader) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, in *bufio.Reader, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(natstest.Patience))
	line, err := in.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("heard %q, %v, want %q", line, err, want)
	}
}

// silent waits a moment for what must not come.
func silent(t *testing.T, c net.Conn, in *bufio.Reader) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if line, err := in.ReadString('\n'); err == nil {
		t.Fatalf("heard %q", line)
	}
}

func ended(t *testing.T, c net.Conn, in *bufio.Reader) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(natstest.Patience))
	_, err := in.ReadString('\n')
	if timeout, ok := errors.AsType[net.Error](err); err == nil || ok && timeout.Timeout() {
		t.Fatalf("the connection stands: %v", err)
	}
}

func TestProxyHold(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	c, in := dial()
	say(t, c, "one")
	hear(t, c, in, "one")
	p.Hold()
	say(t, c, "two")
	silent(t, c, in)
	p.Heal()
	hear(t, c, in, "two")
}

func TestProxyCut(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	c, in := dial()
	say(t, c, "one")
	hear(t, c, in, "one")
	p.Cut()
	ended(t, c, in)
	c, in = dial()
	ended(t, c, in)
	p.Heal()
	c, in = dial()
	say(t, c, "two")
	hear(t, c, in, "two")
}

// TestProxyDeafen: what was answered meanwhile is lost, and the connection with it.
func TestProxyDeafen(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	c, in := dial()
	say(t, c, "one")
	hear(t, c, in, "one")
	p.Deafen()
	say(t, c, "two")
	silent(t, c, in)
	p.Heal()
	ended(t, c, in)
}

func TestProxyDelay(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	c, in := dial()
	const late = 30 * time.Millisecond
	p.Delay(late)
	began := time.Now()
	say(t, c, "one")
	hear(t, c, in, "one")
	if took := time.Since(began); took < 2*late {
		t.Errorf("there and back in %v", took)
	}
	p.Heal()
}

// TestProxyLose: lost acknowledgements are of messages that are stored, lost
// requests of such as are not.
func TestProxyLose(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	p, err := rig.NewProxy(t.Context(), strings.TrimPrefix(srv.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	nc := natstest.Conn(t, "nats://"+p.Addr(), nats.IgnoreDiscoveredServers())
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	name := natstest.Name(t)
	stream, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: name, Subjects: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	acks, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	publish := func(text string) {
		if err := errors.Join(nc.PublishRequest(name, acks.Subject, []byte(text)), nc.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(what string, lost int, stored uint64) {
		natstest.Eventually(t, what, func() error {
			info, err := stream.Info(t.Context())
			if err == nil && (info.State.Msgs != stored || p.Lost() != lost) {
				err = fmt.Errorf("%d stored, %d lost", info.State.Msgs, p.Lost())
			}
			return err
		})
	}
	p.Lose(1, 0, 1)
	publish("its acknowledgement is lost")
	reaches("a lost acknowledgement", 1, 1)
	p.Lose(0, 1, 1)
	publish("is lost")
	reaches("a lost request", 2, 1)
	p.Heal()
	publish("arrives")
	reaches("healed", 2, 2)
	// One acknowledgement came, that of the last: of the second message stored.
	ack, err := acks.NextMsgWithContext(t.Context())
	if err != nil || !strings.Contains(string(ack.Data), `"seq":2`) {
		t.Errorf("%v, %v", ack, err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := acks.Pending(); err != nil || n != 0 {
		t.Errorf("%d more acknowledgements, %v", n, err)
	}
}
