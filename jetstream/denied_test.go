package jetstream_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// deniedAs is a server with a user "all" and others with permissions, and connects
// as one of them.
func deniedAs(t *testing.T, users map[string]*server.Permissions) func(user, inbox string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{{Username: "all", Password: "x"}}, AuthTimeout: natstest.Patience.Seconds(),
	}
	for name, p := range users {
		o.Users = append(o.Users, &server.User{Username: name, Password: "x", Permissions: p})
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("not ready")
	}
	return func(user, inbox string, opts ...nats.Option) *nats.Conn {
		nc, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
			URL: srv.ClientURL(), User: user, Password: "x", InboxPrefix: inbox, Logger: slog.New(slog.DiscardHandler),
			Options: opts, Wait: natstest.Patience,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
}

// TestDeniedAfterItsAnswer: the server's answer to a transaction may be seen before
// what it has denied.
func TestDeniedAfterItsAnswer(t *testing.T) {
	t.Parallel()
	as := deniedAs(t, map[string]*server.Permissions{
		"half": may("$JS.API.INFO", "$JS.API.STREAM.INFO.bank", "$JS.API.STREAM.MSG.GET.bank", "bank.event.account.*.half"),
	})
	if _, err := jetstream.Open(t.Context(), as("all", ""), jetstream.Config{Name: "bank"}); err != nil {
		t.Fatal(err)
	}
	busy, hold := make(chan struct{}), make(chan struct{})
	nc := as("half", "", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if strings.Contains(err.Error(), "elsewhere") {
			close(busy)
			<-hold
		}
	}))
	half := open(t, nc, jetstream.Config{Name: "bank", AttemptTimeout: longAttempt})
	if err := nc.Publish("elsewhere", nil); err != nil {
		t.Fatal(err)
	}
	<-busy
	defer close(hold)
	_, err := half.AppendAll(t.Context(), write("a2", "", jetstream.Head{}), write("half", "", jetstream.Head{}))
	if _, ok := errors.AsType[*jetstream.RefusedError](err); !ok || !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("%T %v: nothing was on its way, so it is refused", err, err)
	}
}

func may(publish ...string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}
}

// wantDenied wants the error at once. What waited for it would wait for the end of
// an attempt each time; a machine that is slow now and then is not that.
func wantDenied(t *testing.T, op, subject string, do func() error) (err error) {
	t.Helper()
	natstest.Eventually(t, "told at once", func() error {
		began := time.Now()
		err = do()
		took := time.Since(began)
		denied, ok := errors.AsType[*jetstream.PermissionError](err)
		if !ok || denied.Op != op || !strings.HasPrefix(denied.Subject, subject) || !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%T %v, want %s to %q", err, err, op, subject)
		} else if took >= jetstream.AttemptTimeoutDefault {
			return fmt.Errorf("told after %v: %w", took, err)
		}
		return nil
	})
	return err
}

func TestDeniedIsToldAtOnce(t *testing.T) {
	t.Parallel()
	const store = "bank"
	as := deniedAs(t, map[string]*server.Permissions{
		"nobody": may("none"),
		"reader": may("$JS.API.INFO", "$JS.API.STREAM.INFO.bank", "$JS.API.STREAM.MSG.GET.bank"),
		"half":   may("$JS.API.INFO", "$JS.API.STREAM.INFO.bank", "$JS.API.STREAM.MSG.GET.bank", "bank.event.account.*.half"),
		"deaf":   {Publish: &server.SubjectPermission{Allow: []string{">"}}, Subscribe: &server.SubjectPermission{Allow: []string{"mine.>"}}},
	})
	s, err := jetstream.Open(t.Context(), as("all", ""), jetstream.Config{Name: store})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, "a1", 3)
	subject, err := s.Subject("account", "a2")
	if err != nil {
		t.Fatal(err)
	}
	attach := func(user string) *jetstream.Store {
		return open(t, as(user, ""), jetstream.Config{Name: store, AttemptTimeout: longAttempt})
	}
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		nc := as("nobody", "")
		_ = wantDenied(t, "publish", "$JS.API.INFO", func() error {
			_, err := jetstream.Attach(t.Context(), nc, store)
			return err
		})
	})
	t.Run("OpenWithoutInbox", func(t *testing.T) {
		t.Parallel()
		nc := as("deaf", "")
		for range 2 { // The second one is not told by the server again.
			_ = wantDenied(t, "subscribe", "_INBOX.", func() error {
				_, err := jetstream.Attach(t.Context(), nc, store)
				return err
			})
		}
		if _, err := jetstream.Attach(t.Context(), as("deaf", "mine"), store); err != nil {
			t.Errorf("with an inbox that it may listen to: %v", err)
		}
	})
	t.Run("Append", func(t *testing.T) {
		t.Parallel()
		reader := attach("reader")
		err := wantDenied(t, "publish", subject, func() error {
			_, err := reader.Append(t.Context(), write("a2", "", jetstream.Head{}))
			return err
		})
		if _, ok := errors.AsType[*jetstream.RefusedError](err); !ok {
			t.Errorf("%T: nothing was on its way, so it is refused", err)
		}
	})
	t.Run("Transaction", func(t *testing.T) {
		t.Parallel()
		half := attach("half")
		for _, ids := range [][]string{{"half", "a2"}, {"a2", "half"}} {
			err := wantDenied(t, "publish", subject, func() error {
				_, err := half.AppendAll(t.Context(), write(ids[0], "", jetstream.Head{}), write(ids[1], "", jetstream.Head{}))
				return err
			})
			if _, ok := errors.AsType[*jetstream.RefusedError](err); !ok {
				t.Errorf("%T: nothing was on its way, so it is refused", err)
			}
		}
		if _, err := s.Last(t.Context(), "account", "half", jetstream.Leader); !errors.Is(err, jetstream.ErrNotFound) {
			t.Errorf("half of it is stored: %v", err)
		}
	})
	t.Run("Read", func(t *testing.T) {
		t.Parallel()
		reader := attach("reader")
		from, err := s.Subject("account", "a1")
		if err != nil {
			t.Fatal(err)
		}
		_ = wantDenied(t, "publish", "$JS.API.DIRECT.GET.bank."+from, func() error {
			_, err := reader.Last(t.Context(), "account", "a1", jetstream.Replica)
			return err
		})
		_ = wantDenied(t, "publish", "$JS.API.DIRECT.GET.bank", func() error {
			_, err := collect(reader.History(t.Context(), "account", "a1", jetstream.Range{}))
			return err
		})
	})
	t.Run("Many", func(t *testing.T) {
		t.Parallel()
		reader := attach("reader")
		_ = wantDenied(t, "publish", "bank.event.account.", func() error {
			const n = 50
			done := make(chan error, n)
			for i := range n {
				go func() {
					_, err := reader.Append(t.Context(), write(fmt.Sprint("m", i), "", jetstream.Head{}))
					done <- err
				}()
			}
			var last error
			for range n {
				if err := <-done; last == nil || !errors.Is(err, nats.ErrPermissionViolation) {
					last = err
				}
			}
			return last
		})
	})
	// One message of a denied subject may be stored: it was sent before the right
	// was taken away. Nobody calls that refused.
	t.Run("OneOfTwo", func(t *testing.T) {
		t.Parallel()
		reader := attach("reader")
		_ = wantDenied(t, "publish", subject, func() error {
			first := started(t.Context(), reader, write("a2", "", jetstream.Head{}))
			second := started(t.Context(), reader, write("a2", "", jetstream.Head{}))
			_, err := (<-first)()
			_, err2 := (<-second)()
			for _, err := range []error{err, err2} {
				_, refused := errors.AsType[*jetstream.RefusedError](err)
				if !refused && !errors.Is(err, jetstream.ErrUnknownOutcome) {
					t.Errorf("%T %v", err, err)
				}
			}
			return errors.Join(err, err2)
		})
	})
}
