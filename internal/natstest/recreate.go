package natstest

import (
	"crypto/rand"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// storeIDLength is that of the ids that stores have.
const storeIDLength = 13

// Recreate deletes a store's stream and makes it again, empty and with another id, as
// an administrator may do behind Rossby's back: jetstream.Open refuses to, as long as
// anything else of the store is there.
func Recreate(t testing.TB, nc *nats.Conn, store string) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("natstest: JetStream: %v", err)
	}
	s, err := js.Stream(t.Context(), store)
	if err != nil {
		t.Fatalf("natstest: stream %s: %v", store, err)
	}
	cfg := s.CachedInfo().Config
	cfg.Metadata = maps.Clone(cfg.Metadata)
	cfg.Metadata["rossby.store"] = strings.ToLower(rand.Text()[:storeIDLength])
	if err := js.DeleteStream(t.Context(), store); err != nil {
		t.Fatalf("natstest: delete stream %s: %v", store, err)
	}
	CreateStream(t, nc, cfg)
}
