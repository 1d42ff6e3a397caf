package console_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// A console below a path of the application's own, for those who are logged in;
// only Ada may act.
func Example() {
	ctx := context.Background()
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Stop() }()
	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{URL: srv.URL(), Options: []nats.Option{srv.Option()}})
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := aggregate.NewRepository(store, accountType(events()), aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}

	con, err := console.New(console.Config{
		Store:   store,
		States:  []console.State{console.StateOf(accounts)},
		Actions: true,
		By:      func(r *http.Request) string { return r.Header.Get("X-User") },
		Authorize: func(r *http.Request, a console.Action) error {
			if a.Name != console.ActionRead && r.Header.Get("X-User") != "ada" {
				return errors.New("only Ada may do that")
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/console/", http.StripPrefix("/admin/console", con))

	// A browser would open /admin/console/; this asks as the page does.
	app := httptest.NewServer(mux)
	defer app.Close()
	if _, err := accounts.Create(ctx, "a1", open{Cents: 500}); err != nil {
		log.Fatal(err)
	}
	resp, err := app.Client().Get(app.URL + "/admin/console/api/aggregates/account/a1?limit=1")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status, len(body) > 100)
	// Output: 200 OK true
}
