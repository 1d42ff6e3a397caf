package webhook_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/jetstream"
)

// A receiver verifies what a hook sends. A program gives hook.Deliver to
// gateway.OnAll; here it is called by hand.
func Example() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	receiver, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: []string{secret}})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(receiver.Handler(func(r *http.Request, m webhook.Message) error {
		e, err := m.Event(r.Header)
		if err != nil {
			return err
		}
		fmt.Println(m.ID, e.Type, e.Subject, string(e.Data))
		return nil
	}))
	defer web.Close()

	hook, err := webhook.New(webhook.Config{
		URL: web.URL, Secrets: []string{secret},
		InsecureHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // this machine only
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hook.Close()
	err = hook.Deliver(context.Background(), struct{ Cents int64 }{700}, gateway.Delivery{
		Meta:  jetstream.Meta{Type: "account", ID: "a1", Name: "opened", EventID: "Zk3x.0", Time: time.Now()},
		Store: "bank", IdempotencyKey: "partner-Zk3x.0",
	})
	fmt.Println(err)
	// Output:
	// partner-Zk3x~0 account.opened a1 {"Cents":700}
	// <nil>
}
