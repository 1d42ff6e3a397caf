package roles_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// TestServicesAnswer: every service of a program answers who asks all of them, those
// of one connection and those of another instance, too.
func TestServicesAnswer(t *testing.T) {
	t.Parallel()
	duo := []roles.Role{
		{Kind: roles.Command, Store: "bank", Name: "order", Makes: true},
		{Kind: roles.Command, Store: "bank", Name: "invoice", Makes: true},
	}
	us := []roles.User{
		{Name: "duo", Roles: duo},
		{Name: "all", Roles: []roles.Role{{Kind: roles.Command, Store: "bank", Makes: true}}},
		{Name: "console", Roles: []roles.Role{{Kind: roles.Console, Store: "bank"}}},
	}
	if n := us[0].Permissions().Responses; n != 2*len(duo)-1 {
		t.Errorf("two services have %d answers", n)
	}
	for name, credentials := range map[string]bool{"Certificates": false, "Credentials": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, credentials, us)
			quiet := slog.New(slog.DiscardHandler)
			for _, user := range []string{"duo", "duo", "all"} {
				store, err := jetstream.Open(w.Context(), w.as(user), jetstream.Config{Name: "bank"})
				if err != nil {
					t.Fatal(err)
				}
				serveOn(w, store, orders(), quiet)
				serveOn(w, store, invoices(), quiet)
			}
			nc := w.as("console")
			natstest.Eventually(t, "six answers", func() error {
				inbox := nc.NewRespInbox()
				sub, err := nc.SubscribeSync(inbox)
				if err != nil {
					return err
				}
				defer func() { _ = sub.Unsubscribe() }()
				if err := nc.PublishRequest("$SRV.INFO", inbox, nil); err != nil {
					return err
				}
				ids := map[string]bool{}
				for range 6 {
					m, err := sub.NextMsgWithContext(within(w))
					if err != nil {
						return fmt.Errorf("after %d: %w", len(ids), err)
					}
					var info micro.Info
					if err := json.Unmarshal(m.Data, &info); err != nil {
						return err
					}
					ids[info.ID] = true
				}
				if len(ids) != 6 {
					return errors.New("one answered twice")
				}
				return nil
			})
			w.nothingDenied()
		})
	}
}

func serveOn[S any](w *world, store *jetstream.Store, typ *aggregate.Type[S], quiet *slog.Logger) {
	w.Helper()
	repo, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	svc, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	w.run(typ.Name(), svc.Run)
	<-svc.Ready()
}
