package roles

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/jetstream"
)

// Kind is what a module does.
type Kind string

// The kinds of modules, and of people. What Name is of each stands beside it.
const (
	// Command keeps aggregates: a repository, and the service that others send
	// commands to. Name is the aggregate type, empty for all.
	Command Kind = "command"
	// Client sends commands to the services of Types, and asks the query services of
	// Views. It reads no store. Name is not used.
	Client Kind = "client"
	// Projection updates a view. Name is the view's.
	Projection Kind = "projection"
	// ProjectionAdmin administers a view: rebuilds, switches, removes. Name is the
	// view's.
	ProjectionAdmin Kind = "projection-admin"
	// Query reads a view, and answers for it. Name is the view's.
	Query Kind = "query"
	// Gateway follows the events, and reports to Types by commands. Name is the
	// gateway's.
	Gateway Kind = "gateway"
	// Reactor follows the events, and sends commands and timers to Types. One that
	// has the repositories in its own process has their Command roles, too. Name is
	// the reactor's.
	Reactor Kind = "reactor"
	// Saga is a Reactor with the Command role and the Timers of its instances. Name
	// is the saga's, Types are those of its steps.
	Saga Kind = "saga"
	// Timers executes due commands on Types. Name is not used: they have a follower
	// for each type.
	Timers Kind = "timers"
	// FollowersAdmin administers gateways, reactors and timers. Name is the
	// follower's, empty for all.
	FollowersAdmin Kind = "followers-admin"
	// FollowersWatcher sees what they do. Name is the follower's, empty for all.
	FollowersWatcher Kind = "followers-watcher"
	// Console shows a store with all that happens in it, and the Views: package
	// console. One with actions has FollowersAdmin, ProjectionAdmin and Client, too.
	// Name is not used.
	Console Kind = "console"
	// Archive reads a whole store: export, verify, the source of a copy. Name is not
	// used.
	Archive Kind = "archive"
	// Import appends what was exported: the target of an import or a copy. Name is
	// not used.
	Import Kind = "import"
	// Operator makes and migrates the store. Name is not used.
	Operator Kind = "operator"
)

// kindNames says of each kind what its name must be.
var kindNames = map[Kind]nameRule{ //nolint:gochecknoglobals // constant
	Command: nameOptional, Client: nameUnused, Projection: nameRequired, ProjectionAdmin: nameRequired,
	Query: nameRequired, Gateway: nameRequired, Reactor: nameRequired, Saga: nameRequired, Timers: nameUnused,
	FollowersAdmin: nameOptional, FollowersWatcher: nameOptional, Console: nameUnused, Archive: nameUnused,
	Import: nameUnused, Operator: nameUnused,
}

type nameRule uint8

const (
	nameRequired nameRule = iota
	nameOptional
	nameUnused
)

// Kinds lists the kinds.
func Kinds() []Kind {
	return []Kind{
		Command, Client, Projection, ProjectionAdmin, Query, Gateway, Reactor, Saga, Timers, FollowersAdmin,
		FollowersWatcher, Console, Archive, Import, Operator,
	}
}

// Role is what one module may do in one store.
type Role struct {
	Kind Kind
	// Store is the store's name.
	Store string
	// Name is the module's: see [Kind].
	Name string
	// Types are the aggregate types that commands go to, of a client, gateway,
	// reactor, saga, or of timers.
	Types []string
	// Views are those that a client asks, or a console shows.
	Views []string
	// Makes lets the module make the streams and buckets that are its own. Without
	// it they must be there: start the module once with it.
	Makes bool
}

// Validate reports everything that is wrong, joined.
func (r Role) Validate() error {
	errs := []error{jetstream.ValidateName("store name", r.Store)}
	rule, known := kindNames[r.Kind]
	if !known {
		errs = append(errs, &jetstream.InvalidError{Field: "Kind", Value: string(r.Kind), Reason: "is none of " + kindList()})
		return errors.Join(errs...)
	}
	switch {
	case rule == nameUnused && r.Name != "":
		errs = append(errs, &jetstream.InvalidError{
			Field: "Name", Value: r.Name, Reason: fmt.Sprintf("is not used by kind %s", r.Kind),
		})
	case rule == nameRequired || r.Name != "":
		errs = append(errs, jetstream.ValidateName("Name", r.Name))
	}
	for _, t := range r.Types {
		errs = append(errs, jetstream.ValidateName("Types", t))
	}
	for _, v := range r.Views {
		errs = append(errs, jetstream.ValidateName("Views", v))
	}
	if takes := []Kind{Client, Gateway, Reactor, Saga, Timers}; len(r.Types) > 0 && !slices.Contains(takes, r.Kind) {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Types", Value: strings.Join(r.Types, ","), Reason: fmt.Sprintf("are not used by kind %s", r.Kind),
		})
	}
	if len(r.Views) > 0 && r.Kind != Client && r.Kind != Console {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Views", Value: strings.Join(r.Views, ","), Reason: fmt.Sprintf("are not used by kind %s", r.Kind),
		})
	}
	if r.Kind == Client && len(r.Types)+len(r.Views) == 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Types", Reason: "and Views are empty: a client needs one of them",
		})
	}
	if r.Kind == Timers && len(r.Types) == 0 {
		errs = append(errs, &jetstream.InvalidError{Field: "Types", Reason: "are empty: timers run for aggregate types"})
	}
	return errors.Join(errs...)
}

func kindList() string {
	all := make([]string, 0, len(kindNames))
	for _, k := range Kinds() {
		all = append(all, string(k))
	}
	return strings.Join(all, ", ")
}

// Permissions are the subjects that somebody may publish and subscribe to; nothing
// else.
type Permissions struct {
	Publish, Subscribe []string
	// Responses is what a server has to let through as answers to each request, within
	// [ResponseTime], 0 for none. All services of a connection answer what asks who
	// is there, as `nats micro ls` does; nats-server 2.15.2 counts their answers
	// together, and each delivery of the request after the first as one more. So it is
	// 2n - 1 for n services.
	Responses int
}

// ResponseTime bounds the answers of services.
const ResponseTime = time.Minute

// AllTypes is how many services a [Command] role without a name is taken to have.
const AllTypes = 16

// User is what a program logs in as.
type User struct {
	// Name is the user's, [a-z0-9-]+. It is part of its inboxes.
	Name string
	// Login is what the server knows the user by: with verify_and_map what stands in
	// the client's certificate, as "CN=accounts". Defaults to Name.
	Login string
	// NKey is the user's public NKey; then the server asks for that instead of Login.
	NKey string
	// Password is written as it is: a hash of `nats server passwd`, or "$NAME" for a
	// variable of the server's environment. Only with Login.
	Password string
	// Roles are those of the modules that the program runs.
	Roles []Role
}

// Validate reports everything that is wrong, joined.
func (u User) Validate() error {
	errs := []error{jetstream.ValidateName("user name", u.Name)}
	if len(u.Roles) == 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Roles", Value: u.Name, Reason: "are empty: the user could do nothing",
		})
	}
	for _, r := range u.Roles {
		errs = append(errs, r.Validate())
	}
	if u.NKey != "" && (u.Login != "" || u.Password != "") {
		errs = append(errs, &jetstream.InvalidError{
			Field: "NKey", Value: u.NKey, Reason: "takes the place of Login and Password",
		})
	}
	if u.NKey != "" && !nkeys.IsValidPublicUserKey(u.NKey) {
		errs = append(errs, &jetstream.InvalidError{Field: "NKey", Value: u.NKey, Reason: "is not a user's public NKey"})
	}
	for field, text := range map[string]string{"Login": u.Login, "Password": u.Password} {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			errs = append(errs, &jetstream.InvalidError{
				Field: field, Reason: fmt.Sprintf("of user %q has characters that cannot be printed", u.Name),
			})
		}
	}
	if u.variable() && !isWord(strings.ReplaceAll(u.Password[1:], "_", "x")) {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Password", Reason: fmt.Sprintf("of user %q is no variable: $ and letters, digits, _", u.Name),
		})
	}
	return errors.Join(errs...)
}

// variable tells that the password is one of the server's environment, and not a
// hash.
func (u User) variable() bool {
	return strings.HasPrefix(u.Password, "$") && !strings.HasPrefix(u.Password, "$2")
}

// InboxPrefix begins the subjects that the user's replies go to, and nobody else's:
// give it to [jetstream.ConnectConfig.InboxPrefix].
func (u User) InboxPrefix() string { return "_INBOX_" + u.Name }

// Permissions are those of all roles, each once, sorted. They are complete only for
// a user that is valid.
func (u User) Permissions() Permissions {
	g := grants{}
	g.subscribe(u.InboxPrefix() + ".>")
	for _, r := range u.Roles {
		g.role(r)
	}
	tidy := func(subjects []string) []string {
		slices.Sort(subjects)
		return slices.Compact(subjects)
	}
	return Permissions{Publish: tidy(g.pub), Subscribe: tidy(g.sub), Responses: max(2*g.services-1, 0)}
}
