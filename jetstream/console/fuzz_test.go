package console_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/httpfuzz"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
)

// FuzzRequest: every request to a console that may act is answered as HTTP wants it,
// and what is wrong with it is said as the sender's fault.
func FuzzRequest(f *testing.F) {
	nc := natstest.Conn(f, natstest.Run(f).URL())
	store, err := jetstream.Open(f.Context(), nc, jetstream.Config{Name: "bank", Codec: jetstream.JSON})
	if err != nil {
		f.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	repo, err := aggregate.NewRepository(store, accountType(events()), aggregate.RepositoryConfig{Logger: quiet})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := repo.Create(f.Context(), "a1", open{Cents: 5}); err != nil {
		f.Fatal(err)
	}
	c, err := console.New(console.Config{Store: store, Actions: true, Logger: quiet})
	if err != nil {
		f.Fatal(err)
	}
	const media = "application/json"
	f.Add("GET", "/api/events?limit=5&before=2&type=account", "", "")
	f.Add("GET", "/api/events/2/tree", "", "")
	f.Add("GET", "/api/aggregates/account/a1/versions/1", "", "")
	f.Add("GET", "/api/aggregates?after=%00&limit=-1", "", "")
	f.Add("GET", "/api/events/18446744073709551616", "", "")
	f.Add("GET", "/api/views/x%2F..%2Fy/entries?after=a", "", "")
	f.Add("GET", "/api/stream?from=now", "", "")
	f.Add("POST", "/api/commands", media, `{"type":"account","command":"credit","id":"a1","body":{"cents":5}}`)
	f.Add("POST", "/api/followers/x/pause", media, `{"why":"x"}`)
	f.Add("POST", "/api/views/x/rebuild", media, strings.Repeat("[", 1<<12))
	f.Add("POST", "/api/switches/x", media, `{"on":true}{}`)
	f.Add("PUT", "/api/events", "text/html", "<")
	f.Fuzz(func(t *testing.T, method, path, media, body string) {
		if !strings.HasPrefix(path, "/api/") {
			return // the page's files
		}
		httpfuzz.Request(t, c, method, path, body, map[string]string{"Content-Type": media})
	})
}
