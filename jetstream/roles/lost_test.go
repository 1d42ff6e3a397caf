package roles_test

import (
	"errors"
	"slices"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/jetstream"
)

// Who makes stores sees what is left of one that is lost; what it may not look at, such
// as another role's view, stops nobody.
func TestALostStoreIsSeenByItsMakers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	ctx := within(w)
	for user, entry := range map[string][2]string{"mailer": {"bank__followers", "mailer"}, "list": {"bank_orders", "_rossby.view"}} {
		js, err := natsjs.New(w.as(user))
		if err != nil {
			t.Fatal(err)
		}
		cfg := natsjs.StreamConfig{Name: "KV_" + entry[0], Subjects: []string{"$KV." + entry[0] + ".>"}}
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx, "$KV."+entry[0]+"."+entry[1], nil); err != nil {
			t.Fatal(err)
		}
	}
	w.nothingDenied()
	for _, user := range []string{"operator", "orders"} {
		_, err := jetstream.Open(ctx, w.trying(user), jetstream.Config{Name: "bank"})
		if lost, ok := errors.AsType[*jetstream.StoreLostError](err); !ok || !slices.Equal(lost.Left, []string{"KV_bank__followers"}) {
			t.Errorf("%s: %v", user, err)
		}
	}
}
