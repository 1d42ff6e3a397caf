package cloudevent_test

import (
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/jetstream"
)

// An event as others know it: in headers and body, and read again.
func Example() {
	delivery := gateway.Delivery{
		Meta: jetstream.Meta{
			Type: "account", ID: "a1", Name: "opened", Version: 1, EventID: "Zk3x.0",
			Time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC),
		},
		Store: "bank",
	}
	event, err := cloudevent.New(struct{ Cents int64 }{700}, delivery, "", "org.example.")
	if err != nil {
		log.Fatal(err)
	}
	header := http.Header{}
	event.WriteHeaders(header.Set)
	fmt.Println(header.Get("Ce-Type"), header.Get("Ce-Source"), header.Get("Ce-Id"))

	got, err := cloudevent.Read("application/json", header.Get, event.Data)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(got.Subject, got.Version, got.Time, string(got.Data))
	// Output:
	// org.example.account.opened /bank Zk3x.0
	// a1 1 2026-11-26 12:00:00 +0000 UTC {"Cents":700}
}
