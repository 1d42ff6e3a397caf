package roles_test

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// TestWhatRolesCannotDo holds what docs/security.md warns of: when the server
// begins to prevent one of these, the document can say so.
func TestWhatRolesCannotDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	ctx := within(w)
	store, err := jetstream.Open(ctx, w.as("shop"), jetstream.Config{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := orderEvents.Encode(placed{Cents: 1}, store.Codec())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(ctx, jetstream.Write{
		Type: "order", ID: "o1", Decisions: []jetstream.Decision{{Events: []jetstream.EventData{data}}},
	}); err != nil {
		t.Fatal(err)
	}
	ask := func(nc *nats.Conn, subject string, request any) {
		t.Helper()
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		m, err := wire.Ask(ctx, nc, subject, body)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Error *wire.APIError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error != nil {
			t.Fatalf("%s: %s, %v", subject, m.Data, err)
		}
	}

	// The server delivers to a subject that the consumer's maker may not publish to.
	victim := w.as("front")
	sub, err := victim.SubscribeSync("_INBOX_front.x")
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	ask(w.as("shop-mailer"), "$JS.API.CONSUMER.CREATE.shop.mailer", map[string]any{
		"stream_name": "shop", "config": map[string]any{
			"durable_name": "mailer", "ack_policy": "none", "deliver_policy": "all", "deliver_subject": "_INBOX_front.x",
		},
	})
	if m, err := sub.NextMsgWithContext(ctx); err != nil || len(m.Data) == 0 {
		t.Errorf("%+v, %v", m, err)
	}

	// Who may make a bucket fills it from another store.
	thief := w.as("list")
	ask(thief, "$JS.API.STREAM.CREATE.KV_bank_orders", map[string]any{
		"name": "KV_bank_orders", "storage": "memory", "allow_direct": true, "retention": "limits", "num_replicas": 1,
		"sources": []any{map[string]any{"name": "shop"}},
	})
	natstest.Eventually(t, "an event of the other store", func() error {
		_, err := wire.LeaderLast(ctx, thief, "KV_bank_orders", "shop.event.order.>")
		return err
	})
}
