package queryhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// bank runs a view of a store with one account, on a server in this process.
// Programs use jetstream.Connect.
func bank(ctx context.Context) (nc *nats.Conn, last jetstream.Position, end func()) {
	srv, err := embedded.Start(embedded.Config{LazySync: true})
	if err != nil {
		log.Fatal(err)
	}
	nc, err = nats.Connect("", srv.Option(), nats.ReconnectBufSize(-1))
	if err != nil {
		log.Fatal(err)
	}
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank"})
	if err != nil {
		log.Fatal(err)
	}
	data, err := events.Encode(credited{Cents: 70}, store.Codec())
	if err != nil {
		log.Fatal(err)
	}
	head, err := store.Append(ctx, jetstream.Write{
		Type: "account", ID: "a1", Decisions: []jetstream.Decision{{Time: time.Now(), Events: []jetstream.EventData{data}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	up, err := projection.NewUpdater(store, balances(1), projection.UpdaterConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()
	for up.Status().Position != store.Position(head.Sequence) { // This machine may stand still now and then.
		<-time.After(time.Millisecond)
	}
	return nc, store.Position(head.Sequence), func() {
		cancel()
		if err := <-done; err != nil {
			log.Fatal(err)
		}
		nc.Close()
		if err := srv.Stop(); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	ctx := context.Background()
	nc, last, end := bank(ctx)
	defer end()

	reader, err := projection.NewReader[balance](ctx, nc, "bank", "balances", projection.ReaderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	h, err := queryhttp.New(reader, queryhttp.Config{})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/balances/", http.StripPrefix("/balances", h))
	server := httptest.NewServer(mux)
	defer server.Close()
	defer h.Close() // a http.Server: server.RegisterOnShutdown(h.Close)

	get := func(path string, header ...string) *http.Response {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			log.Fatal(err)
		}
		if len(header) > 0 {
			r.Header.Set(header[0], header[1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		return resp
	}
	// The position is that of the command's answer.
	resp := get("/balances/a1?after=" + last.String())
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(body)))

	resp = get("/balances/a1", "If-None-Match", resp.Header.Get("ETag"))
	_ = resp.Body.Close()
	fmt.Println(resp.StatusCode)

	resp = get("/balances/?prefix=a", "Accept", "text/event-stream")
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, found := strings.CutPrefix(lines.Text(), "event: "); found {
			fmt.Println(name)
			if name == "ready" {
				break
			}
		}
	}
	_ = resp.Body.Close()
	// Output:
	// 200 {"cents":70,"note":"<a1>"}
	// 304
	// put
	// ready
}
