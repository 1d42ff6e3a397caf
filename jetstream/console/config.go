package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// ListenersDefault is how many pages may listen at once.
const ListenersDefault = 64

// The names of actions: what [Config.Authorize] is asked about.
const (
	ActionRead     = "read"
	ActionCommand  = "command"
	ActionPause    = "pause"
	ActionResume   = "resume"
	ActionRetry    = "retry"
	ActionDiscard  = "discard"
	ActionRebuild  = "rebuild"
	ActionCompare  = "compare"
	ActionSwitch   = "switch"
	ActionRollback = "rollback"
	ActionRemove   = "remove"
	ActionFlip     = "flip"    // of a [Switch]
	ActionResolve  = "resolve" // of a saga that is stuck
)

// Action is what a request wants to do.
type Action struct {
	// Name is one of the names above.
	Name string
	// Target is what it is done to: "account/a1/debit" for a command, "checkout/c1" for
	// a saga, the name of a follower, a view or a switch, the path for a read.
	Target string
}

// Config tells what a console shows and allows. Store is required.
type Config struct {
	// Actions lets people send commands, pause, retry, rebuild and so on. Defaults to
	// false: the console shows, and changes nothing.
	Actions bool
	// Authorize decides about each request, reads too; an error is answered 403
	// with its text. Defaults to allowing what Actions allows.
	Authorize func(r *http.Request, a Action) error
	// By says who asks, for the records that actions leave. Defaults to "console".
	By func(r *http.Request) string
	// Checks are invariants of the application that the page shows all the time.
	Checks []Check
	// DurabilitySources are where to learn how the servers sync.
	DurabilitySources jetstream.DurabilitySources
	// Links stand in the page's head.
	Links []Link
	// Listeners bounds the pages that listen at once. Defaults to [ListenersDefault].
	Listeners int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Sagas are those whose steps are shown and whose instances can be told what to do:
	// see [SagaOf]. Of others the page shows what their commits tell.
	Sagas []Saga
	// States are what gives aggregates' states as of a version: see [StateOf].
	States []State
	// Store is the store that is shown.
	Store *jetstream.Store
	// Switches are things of the application that can be broken and mended.
	Switches []Switch
	// Title is the page's. Defaults to the store's name.
	Title string
	// Views are the store's views. Defaults to all that have a bucket.
	Views []string
}

// Link is a link in the page's head.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Check is something that must hold.
type Check struct {
	// Name is unique, Title for people.
	Name, Title string
	// Run looks whether it holds. It is called about once a second while somebody
	// looks, with a deadline.
	Run func(ctx context.Context) (Result, error)
}

// Result is what a [Check] found.
type Result struct {
	Holds bool `json:"holds"`
	// Text says in a line what was looked at.
	Text string `json:"text"`
}

// Switch is something of the application with a few positions, such as a service
// that works, fails or is slow.
type Switch struct {
	// Name is unique, [a-z0-9-]+; Title and Help are for people.
	Name, Title, Help string
	// Gateway is the gateway that it stands beside. Without one it stands with those of
	// its Group, in the order of the configuration. Group defaults to "Parts".
	Gateway, Group string
	// Options are the positions, the healthy one first.
	Options []string
	// State is the position that it is in, with a line about it.
	State func() (option, note string)
	// Set changes it.
	Set func(ctx context.Context, option string) error
}

// State gives states of one aggregate type. The zero State gives none.
type State struct {
	name string
	at   func(ctx context.Context, id string, version uint64) (any, error)
}

// StateOf gives the states of a repository's type. The repository may be one of its
// own, made only to read.
func StateOf[S any](repo *aggregate.Repository[S]) State {
	return State{name: repo.TypeName(), at: func(ctx context.Context, id string, version uint64) (any, error) {
		s, err := repo.LoadAt(ctx, id, version)
		return s.State, err
	}}
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("console: Config.Store is missing"))
	}
	if c.Listeners < 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Listeners", Value: strconv.Itoa(c.Listeners), Reason: "is negative",
		})
	}
	for i, s := range c.States {
		if s.at == nil {
			errs = append(errs, fmt.Errorf("console: Config.States[%d] is empty: make it with StateOf", i))
		}
	}
	for i, s := range c.Sagas {
		if s.inspect == nil {
			errs = append(errs, fmt.Errorf("console: Config.Sagas[%d] is empty: make it with SagaOf", i))
		}
	}
	for i, k := range c.Checks {
		if k.Name == "" || k.Run == nil {
			errs = append(errs, fmt.Errorf("console: Config.Checks[%d] (%q) lacks Name or Run", i, k.Name))
		}
	}
	for i, s := range c.Switches {
		errs = append(errs, jetstream.ValidateName(fmt.Sprintf("Switches[%d].Name", i), s.Name))
		if len(s.Options) < 2 || s.State == nil || s.Set == nil {
			errs = append(errs, fmt.Errorf("console: Config.Switches[%d] (%q) lacks Options, State or Set", i, s.Name))
		}
	}
	for _, v := range c.Views {
		errs = append(errs, jetstream.ValidateName("Views", v))
	}
	return errors.Join(errs...)
}
