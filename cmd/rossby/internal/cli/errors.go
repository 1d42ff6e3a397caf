package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
	"github.com/rossby-go/rossby/jetstream/followers"
	"github.com/rossby-go/rossby/projection"
)

// The exit codes. docs/cli.md has them, too.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitFound       = 4
	exitUnavailable = 5
	exitRefused     = 6
	exitUnknown     = 7
	exitInterrupted = 130
)

const exitCodes = `Exit codes: 0 done, 1 error, 2 wrong usage or input, 3 not found, 4 a check found
damage, differences or too little durability, 5 NATS or the service is not there,
6 refused by an aggregate, a follower, a view, the server's permissions or a person,
7 the outcome is unknown, 130 interrupted.`

var (
	// errReported is an error whose text is out already.
	errReported = errors.New("reported")
	// errFound is what a check found.
	errFound = errors.New("not as it should be")
	// errNotFound is something that is not there.
	errNotFound = errors.New("not found")
	// errDeclined is a person's no.
	errDeclined = errors.New("nothing was done")
)

// usageError is a command line that cannot be meant.
type usageError struct {
	text  string
	cause error
}

func (e *usageError) Error() string { return e.text }
func (e *usageError) Unwrap() error { return e.cause }

// toldError is an error that a service has worded.
type toldError struct {
	text  string
	cause error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.cause }

// matches tells whether the error is one of them.
func matches(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

// is tells whether there is an error of the type.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// exitCode says what kind of failure an error is. A check's finding comes first: it
// was found, whatever happened then.
func exitCode(ctx context.Context, err error) int {
	switch {
	case matches(err, errFound, jetstream.ErrDamaged, jetstream.ErrFormat, jetstream.ErrStoreWentBack, archive.ErrDamaged,
		archive.ErrTruncated), is[*jetstream.DurabilityError](err):
		return exitFound
	case errors.Is(err, jetstream.ErrUnknownOutcome):
		return exitUnknown
	case ctx.Err() != nil && matches(err, context.Canceled, context.Cause(ctx)):
		return exitInterrupted
	case is[*usageError](err), is[*jetstream.InvalidError](err), is[*projection.KeyError](err),
		is[*jetstream.ForeignPositionError](err), matches(err, archive.ErrNotArchive, archive.ErrNewer):
		return exitUsage
	case matches(err, errNotFound, jetstream.ErrNotFound, jetstream.ErrStoreNotFound, projection.ErrNotFound,
		projection.ErrViewNotFound, followers.ErrNeverRan, aggregate.ErrNotFound, fs.ErrNotExist):
		return exitNotFound
	case is[*aggregate.RejectedError](err), is[*aggregate.VersionError](err), is[*jetstream.PermissionError](err),
		matches(err, errDeclined,
			aggregate.ErrExists, aggregate.ErrOtherPayload, followers.ErrNotWaiting, followers.ErrRefused,
			projection.ErrGeneration, projection.ErrBuilding, projection.ErrPartial, archive.ErrComplete, archive.ErrOtherExport,
			jetstream.ErrNotACopy):
		return exitRefused
	case electing(err), is[*jetstream.ConnectError](err), matches(err, jetstream.ErrUnavailable, jetstream.ErrNoJetStream,
		projection.ErrUnavailable, projection.ErrStale, followers.ErrNotRunning, nats.ErrNoResponders, nats.ErrTimeout,
		context.DeadlineExceeded, aggregate.ErrBusy, aggregate.ErrContended, jetstream.ErrIncomplete):
		return exitUnavailable
	default:
		return exitError
	}
}

// electing tells that JetStream's API answers nothing now: servers elect a leader.
func electing(err error) bool {
	api, ok := errors.AsType[*natsjs.APIError](err)
	return ok && api.Code == http.StatusServiceUnavailable
}

// near are the known names that a name may have been meant to be.
func near(name string, known []string) []string {
	c := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, k := range known {
		c.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	return c.SuggestionsFor(name)
}

// listed is how many names an error lists.
const listed = 10

// hint says what may have been meant, or what there is.
func hint(name string, meant, known []string) string {
	switch {
	case name != "" && len(meant) > 0:
		return "; did you mean " + strings.Join(meant, " or ") + "?"
	case len(known) == 0:
		return ""
	case len(known) > listed:
		return "; there are " + strings.Join(known[:listed], ", ") + " and more"
	default:
		return "; there are " + strings.Join(known, ", ")
	}
}

// missing is the error for a name that is none.
func missing(kind, name string, known []string) error {
	return fmt.Errorf("%s %q: %w%s", kind, name, errNotFound, hint(name, near(name, known), known))
}

// noArgs is cobra.NoArgs, which would speak of a command that it does not know.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is one argument too many", args[0])
	}
	return nil
}

func flagError(c *cobra.Command, err error) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if meant := near(name, known); len(meant) > 0 {
			text += "; did you mean --" + strings.Join(meant, " or --") + "?"
		}
	}
	return &usageError{text, err}
}
