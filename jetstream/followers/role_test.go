package followers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// The role of docs/followers.md is enough, and one that only looks cannot do more.
func TestRole(t *testing.T) {
	t.Parallel()
	const store = "bank"
	read := []string{
		"$JS.API.INFO", "$JS.API.STREAM.INFO.bank", "$JS.API.STREAM.MSG.GET.bank", "$JS.API.CONSUMER.INFO.bank.*",
		"$JS.API.STREAM.INFO.KV_bank__followers", "$JS.API.STREAM.MSG.GET.KV_bank__followers",
		"$JS.API.CONSUMER.CREATE.KV_bank__followers.>", "$JS.API.CONSUMER.DELETE.KV_bank__followers.>",
		"$JS.API.STREAM.MSG.GET.bank__actions", "$JS.API.DIRECT.GET.bank", "$JS.API.DIRECT.GET.bank.>",
	}
	role := func(subjects ...string) *server.Permissions {
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: append(subjects, read...)},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "all", Password: "x"},
			{Username: "admin", Password: "x", Permissions: role("bank.follower.>")},
			{Username: "watcher", Password: "x", Permissions: role("bank.follower.*.status")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("not ready")
	}
	as := func(user string) *nats.Conn {
		return natstest.Conn(t, srv.ClientURL(), nats.UserInfo(user, "x"), func(o *nats.Options) error {
			wire.WatchDenials(o)
			return nil
		})
	}
	b := namedBench(t, as("all"), store)
	b.append("a", 1)
	b.run()
	b.eventually("all is done", caughtUp)

	admin := func(user string) *followers.Admin {
		s, err := jetstream.Attach(t.Context(), as(user), store)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		return followers.New(s)
	}
	ctx := t.Context()
	watcher, keeper := admin("watcher"), admin("admin")
	for name, a := range map[string]*followers.Admin{"watcher": watcher, "admin": keeper} {
		natstest.Eventually(t, name, func() error {
			if s, err := a.Status(ctx, "out"); err != nil || s.Kind != "gateway" {
				return fmt.Errorf("status %+v, %w", s, err)
			}
			if all, err := a.List(ctx); err != nil || len(all) != 1 {
				return fmt.Errorf("list %+v, %w", all, err)
			}
			return nil
		})
	}
	if err := watcher.Pause(ctx, "out", "eve", "x"); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("a watcher pauses: %v", err)
	}
	b.asks("pause", func() error { return keeper.Pause(ctx, "out", "ada", "x") })
	b.asks("resume", func() error { return keeper.Resume(ctx, "out", "ada") })
	n := 0
	for a, err := range watcher.Actions(ctx, "out") {
		if err != nil || a.By != "ada" {
			t.Errorf("%+v, %v", a, err)
		}
		n++
	}
	if n < 2 { // what was not answered in time was asked again
		t.Errorf("%d actions", n)
	}
	// The rest of the store is closed to it.
	msg := nats.NewMsg("bank.event.thing.1.a")
	within, cancel := context.WithTimeout(ctx, natstest.Patience)
	defer cancel()
	if _, err := wire.Request(within, as("admin"), msg); !wire.Denied(err) {
		t.Errorf("an admin appends: %v", err)
	}
}
