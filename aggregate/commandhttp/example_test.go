package commandhttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// bank opens a store on a server in this process. Programs use jetstream.Connect.
func bank(ctx context.Context) (*aggregate.Repository[account], func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1), nats.Timeout(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
	if err != nil {
		log.Fatal(err)
	}
	return repo, func() {
		nc.Close()
		if err := srv.Stop(); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	repo, stop := bank(context.Background())
	defer stop()

	// The target may as well be an aggregate.Client of a service elsewhere.
	h, err := commandhttp.New(commandhttp.Config{Targets: []aggregate.Target{repo}})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/commands/", http.StripPrefix("/commands", h))
	srv := httptest.NewServer(http.NewCrossOriginProtection().Handler(mux))
	defer srv.Close()

	post := func(path, body string, header map[string]string) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, srv.URL+path, strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for name, value := range header {
			r.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var problem struct {
			Detail string `json:"detail"`
		}
		if resp.StatusCode >= http.StatusBadRequest {
			if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println(strings.TrimSpace(fmt.Sprintln(
			resp.StatusCode, resp.Header.Get("ETag"), resp.Header.Get("Idempotent-Replayed"), problem.Detail)))
	}
	post("/commands/account/a1/open", `{"cents":100}`, nil)
	once := map[string]string{"Idempotency-Key": `"8e03978e"`, "If-Match": `"1"`}
	post("/commands/account/a1/debit", `{"cents":30}`, once)
	post("/commands/account/a1/debit", `{"cents":30}`, once)
	post("/commands/account/a1/debit", `{"cents":30}`, map[string]string{"If-Match": `"1"`})
	// Output:
	// 201 "1"
	// 200 "2"
	// 200 "2" true
	// 412 "2"  account "a1": expected version 1, it is 2
}
