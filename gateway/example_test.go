package gateway_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// Members join a club and are sent a letter.
type (
	Joined struct{ Name string }
	Member struct{}
	Join   struct{ Name string }
)

var memberEvents = jetstream.NewSchema("member", jetstream.Event[Joined]("joined"))

var members = aggregate.New[Member](memberEvents,
	aggregate.Apply(func(*Member, Joined, jetstream.Meta) {}),
	aggregate.Create("join", func(c Join, _ aggregate.Decision) ([]any, error) { return []any{Joined(c)}, nil }),
)

// A gateway posts to a web service, which is down at first. Every attempt bears
// the same key, so that the service can tell a repetition.
func ExampleGateway() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	keys := make(chan string, 2)
	var requests atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		keys <- r.Header.Get("Idempotency-Key")
	}))
	defer web.Close()

	post := func(ctx context.Context, e Joined, d gateway.Delivery) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, web.URL, strings.NewReader("Welcome, "+e.Name))
		if err != nil {
			return gateway.Permanent(err)
		}
		req.Header.Set("Idempotency-Key", d.IdempotencyKey)
		resp, err := web.Client().Do(req)
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		fmt.Printf("attempt %d: %s\n", d.Attempt, resp.Status)
		switch {
		case resp.StatusCode < 300:
			return nil
		case resp.StatusCode < 500:
			return gateway.Permanent(fmt.Errorf("letter to %s: %s", e.Name, resp.Status))
		default:
			return fmt.Errorf("letter to %s: %s", e.Name, resp.Status)
		}
	}

	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1)) // programs use jetstream.Connect
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "club"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, members, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}

	letters, err := gateway.New(store, "letters", gateway.Config{
		Start: jetstream.FromBeginning(), MaxBackoff: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}, gateway.On(memberEvents, post))
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- letters.Run(ctx) }()

	if _, err := repo.Create(ctx, "m1", Join{Name: "Ada"}); err != nil {
		log.Fatal(err)
	}
	first, second := <-keys, <-keys
	fmt.Println("the same key:", first == second)
	cancel() // what is under way is finished
	fmt.Println(<-done)

	nc.Close()
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// attempt 1: 503 Service Unavailable
	// attempt 2: 200 OK
	// the same key: true
	// <nil>
}
