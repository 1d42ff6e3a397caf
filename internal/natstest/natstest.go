package natstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream/embedded"
)

// Patience bounds everything in this package that waits for a server.
const Patience = 90 * time.Second

// Run starts an unreplicated server on a free TCP port of 127.0.0.1, which stays its
// own while it is down. It syncs lazily and keeps its data in a temporary directory;
// both end with the test.
func Run(t testing.TB) *embedded.Server {
	t.Helper()
	return run(t, true)
}

// RunFsync is [Run] with a server that syncs every write.
func RunFsync(t testing.TB) *embedded.Server {
	t.Helper()
	return run(t, false)
}

func run(t testing.TB, lazy bool) *embedded.Server {
	t.Helper()
	srv, err := embedded.Start(embedded.Config{Listen: Addr(t), LazySync: lazy, ReadyTimeout: Patience})
	if err != nil {
		t.Fatalf("natstest: start a server: %v", err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Errorf("natstest: stop the server: %v", err)
		}
	})
	return srv
}

// RunBare starts a server without JetStream, whose part a test plays, until the test ends.
// It returns the server's address.
func RunBare(t testing.TB) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatalf("natstest: %v", err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(Patience) {
		t.Fatal("natstest: the server is not ready")
	}
	return srv.ClientURL()
}

// Conn connects as a writer of Rossby does: it reconnects for ever, and a
// publish while disconnected fails at once. The url may list several addresses,
// comma separated. A server that is not there yet is waited for; one that refuses the
// user fails the test. The connection is closed when the test ends.
func Conn(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	all := append([]nats.Option{
		nats.Name(t.Name()),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond),
		nats.PermissionErrOnSubscribe(true),
		nats.Timeout(Patience),
		// Without a handler nats.go prints.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	var nc *nats.Conn
	connected := Eventually(t, "connect to "+url, func() (err error) {
		if nc, err = nats.Connect(url, all...); errors.Is(err, nats.ErrAuthorization) {
			t.Fatalf("natstest: connect to %q: %v", url, err)
		}
		return err
	})
	if !connected {
		t.FailNow()
	}
	t.Cleanup(nc.Close)
	return nc
}

// Name returns a name of at most 60 characters out of [a-z0-9-] that no other
// call returns: that of the test and a random end.
func Name(t testing.TB) string {
	t.Helper()
	const keep = 40
	var b strings.Builder
	for _, r := range strings.ToLower(t.Name()) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			r = '-'
		}
		b.WriteRune(r)
	}
	name := b.String()
	if len(name) > keep {
		name = name[len(name)-keep:]
	}
	return strings.Trim(name, "-") + "-" + strconv.FormatUint(rand.Uint64(), 36)
}

// Eventually polls, less often with time, until the condition holds, and fails the test with what the
// condition last said when it never does. It may be called from any goroutine;
// the result tells whether the condition held.
func Eventually(t testing.TB, what string, condition func() error) bool {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	for pause := 2 * time.Millisecond; ; pause = min(pause*5/4, 50*time.Millisecond) {
		err := condition()
		if err == nil {
			return true
		}
		select {
		case <-deadline.C:
			t.Error(fmt.Errorf("natstest: %s: not within %v: %w", what, Patience, err))
			return false
		case <-t.Context().Done():
			t.Error(fmt.Errorf("natstest: %s: the test ended: %w", what, err))
			return false
		case <-time.After(pause):
		}
	}
}
