// Package account has the events of an account, as the documents show them.
package account

import "github.com/rossby-go/rossby/jetstream"

// snippet:events

// What happens to an account.
type (
	Opened   struct{ Cents int64 }
	Credited struct{ Cents int64 }
	Debited  struct{ Cents int64 }
)

// Events are those of the aggregate type account. Their names are stored.
var Events = jetstream.NewSchema("account",
	jetstream.Event[Opened]("opened"),
	jetstream.Event[Credited]("credited"),
	jetstream.Event[Debited]("debited"),
)

// end:events
