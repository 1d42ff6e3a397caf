package jetstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// oldServer speaks as much of the protocol as a connection needs, and says that
// it is of the version.
func oldServer(t *testing.T, version string) (url string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":%q,\"headers\":true,\"max_payload\":1048576}\r\n", version)
		for s := bufio.NewScanner(conn); s.Scan(); {
			if strings.HasPrefix(s.Text(), "PING") {
				_, _ = fmt.Fprint(conn, "PONG\r\n")
			}
		}
	}()
	return "nats://" + l.Addr().String()
}

func TestServerTooOld(t *testing.T) {
	t.Parallel()
	nc, err := nats.Connect(oldServer(t, "2.13.9"), nats.Timeout(natstest.Patience))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for what, open := range map[string]func() error{
		"Open": func() error {
			_, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: natstest.Name(t)})
			return err
		},
		"Attach": func() error {
			_, err := jetstream.Attach(t.Context(), nc, natstest.Name(t))
			return err
		},
	} {
		err := open()
		if !errors.Is(err, jetstream.ErrServerTooOld) || !strings.Contains(err.Error(), "2.13.9") ||
			!strings.Contains(err.Error(), jetstream.OldestServer) || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
