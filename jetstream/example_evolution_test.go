package jetstream_test

import (
	"fmt"
	"log"

	"github.com/rossby-go/rossby/jetstream"
)

// Paid is an event, as it is today.
type Paid struct {
	Cents int64 `json:"cents"`
}

// FeeCharged is another.
type FeeCharged struct {
	Cents int64 `json:"cents"`
}

// show prints what a stored event is read as.
func show(events *jetstream.Schema, name string, version int, data string) {
	current, err := events.Decode(jetstream.EventData{Name: name, Version: version, Codec: jetstream.JSON, Data: []byte(data)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %d: %+v\n", name, version, current)
}

func ExampleRenamed() {
	type paidV1 struct {
		Euros int64 `json:"euros"`
	}
	// "paid-in" became "deposited", and that "paid", whose second version counts cents.
	events := jetstream.NewSchema("account",
		jetstream.Event[Paid]("paid", jetstream.Version(2),
			jetstream.Upcast(func(old paidV1) Paid { return Paid{Cents: old.Euros * 100} })),
		jetstream.Renamed("paid-in", "deposited"),
		jetstream.Renamed("deposited", "paid"),
	)
	show(events, "paid-in", 1, `{"euros":5}`)
	show(events, "deposited", 2, `{"cents":700}`)
	// A filter by name needs all of them.
	fmt.Println(jetstream.Range{Events: events.StoredNames("paid")}.Events)
	// Output:
	// paid-in 1: [{Cents:500}]
	// deposited 2: [{Cents:700}]
	// [deposited paid paid-in]
}

func ExampleUpcastMany() {
	type paidV1 struct {
		Cents int64 `json:"cents"`
		Fee   int64 `json:"fee"`
	}
	// The fee of a payment became an event of its own.
	events := jetstream.NewSchema("account",
		jetstream.Event[FeeCharged]("fee-charged"),
		jetstream.Event[Paid]("paid", jetstream.Version(2),
			jetstream.UpcastMany(func(old paidV1) []any {
				made := []any{Paid{Cents: old.Cents}}
				if old.Fee > 0 {
					made = append(made, FeeCharged{Cents: old.Fee})
				}
				return made
			})),
	)
	show(events, "paid", 1, `{"cents":500,"fee":2}`)
	show(events, "paid", 1, `{"cents":500}`)
	// Output:
	// paid 1: [{Cents:500} {Cents:2}]
	// paid 1: [{Cents:500}]
}

func ExampleRetired() {
	type settled struct {
		Cents int64 `json:"cents"`
		Fee   int64 `json:"fee"`
	}
	// Nobody settles any more: what was settled is read as paid, less the fee.
	events := jetstream.NewSchema("account",
		jetstream.Event[Paid]("paid"),
		jetstream.Event[FeeCharged]("fee-charged"),
		jetstream.Retired("settled", jetstream.UpcastMany(func(old settled) []any {
			return []any{Paid{Cents: old.Cents}, FeeCharged{Cents: old.Fee}}
		})),
	)
	show(events, "settled", 1, `{"cents":500,"fee":2}`)
	_, err := events.Encode(settled{}, jetstream.JSON)
	fmt.Println(err)
	// Output:
	// settled 1: [{Cents:500} {Cents:2}]
	// event jetstream_test.settled is not declared in the schema of "account"
}

func ExampleRemoved() {
	events := jetstream.NewSchema("account",
		jetstream.Event[Paid]("paid"),
		jetstream.Removed("page-viewed"),
	)
	show(events, "page-viewed", 1, `{"page":"/"}`)
	// Output: page-viewed 1: []
}
