package aggregate_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// Mistakes are found when a type is built, all of them, and returned by whatever
// is given the type.
func TestTypeMistakes(t *testing.T) {
	t.Parallel()
	type hidden struct{ balance int64 } //nolint:unused // that it vanishes is the point
	type twin struct{ Cents int64 }
	apply := func(*account, opened, jetstream.Meta) {}
	decide := func(account, debit, aggregate.Decision) ([]any, error) { return nil, nil }
	one := jetstream.NewSchema("account", jetstream.Event[opened]("opened"))
	for what, c := range map[string]struct {
		typ  interface{ Err() error }
		want string
	}{
		"no schema":      {aggregate.New[account](nil), "schema is nil"},
		"bad schema":     {aggregate.New[account](jetstream.NewSchema("No Name")), "aggregate type"},
		"no Apply":       {aggregate.New[account](one, aggregate.Handle("debit", decide)), `event "opened": no Apply`},
		"no commands":    {aggregate.New[account](one, aggregate.Apply(apply)), "no commands"},
		"two Applies":    {aggregate.New[account](one, aggregate.Apply(apply), aggregate.Apply(apply)), "two Applies"},
		"undeclared":     {aggregate.New[account](one, aggregate.Apply(func(*account, debited, jetstream.Meta) {})), "not an event"},
		"nil Apply":      {aggregate.New[account](one, aggregate.Apply[account, opened](nil)), "nil function"},
		"nil Handle":     {aggregate.New[account](one, aggregate.Handle[account, debit]("debit", nil)), "nil function"},
		"nil Create":     {aggregate.New[account](one, aggregate.Create[open]("open", nil)), "nil function"},
		"other state":    {aggregate.New[twin](one, aggregate.Apply(apply)), "for state"},
		"other state 2":  {aggregate.New[twin](one, aggregate.Handle("debit", decide)), "for state"},
		"hidden fields":  {aggregate.New[hidden](one), "balance"},
		"no struct":      {aggregate.New[int](one), "state type"},
		"name":           {aggregate.New[account](one, aggregate.Handle("two words", decide)), "command name"},
		"name twice":     {aggregate.New[account](one, aggregate.Handle("debit", decide), aggregate.Handle("debit", decide)), "declared twice"},
		"type twice":     {aggregate.New[account](one, aggregate.Handle("a", decide), aggregate.Handle("b", decide)), "is declared as"},
		"state version":  {aggregate.New[account](one, aggregate.StateVersion(0)), "StateVersion"},
		"state limit":    {aggregate.New[account](one, aggregate.StateLimit(-1)), "StateLimit"},
		"command's type": {aggregate.New[account](one, aggregate.Create("x", func(int, aggregate.Decision) ([]any, error) { return nil, nil })), "command type"},
	} {
		if err := c.typ.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	bad := aggregate.New[account](one)
	if _, err := aggregate.NewRepository(store, bad, aggregate.RepositoryConfig{}); err == nil {
		t.Error("a repository of a wrong type")
	}
	if _, err := aggregate.NewClient(nc, "bank", bad, aggregate.ClientConfig{}); err == nil {
		t.Error("a client of a wrong type")
	}
	if name := aggregate.New[account](nil).Name(); name != "" {
		t.Error(name)
	}
	names := make([]string, 0, 5)
	for _, c := range accounts.Commands() {
		names = append(names, c.Name)
		if c.Creates != (c.Name == "open") || !json.Valid(c.Schema) {
			t.Errorf("%+v", c)
		}
	}
	if repo.TypeName() != "account" || accounts.Schema() != events || strings.Join(names, " ") != "credit debit fail move open" ||
		!reflect.DeepEqual(repo.Commands(), accounts.Commands()) {
		t.Error(repo.TypeName(), names)
	}
}

// The fingerprint changes with everything that a stored state depends on, and with
// nothing else.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	one := jetstream.NewSchema("account", jetstream.Event[opened]("opened"))
	seen := map[string]string{}
	differs := func(what string, typ interface {
		Err() error
		Fingerprint() string
	}) {
		t.Helper()
		if typ.Err() != nil {
			t.Fatal(what, typ.Err())
		}
		if other, taken := seen[typ.Fingerprint()]; taken || typ.Fingerprint() == "" {
			t.Errorf("%s has the fingerprint of %s", what, other)
		}
		seen[typ.Fingerprint()] = what
	}
	differs("plain", fingerprinted[account](one))
	differs("state version", fingerprinted[account](one, aggregate.StateVersion(2)))
	differs("more events", aggregate.New[account](jetstream.NewSchema("account", jetstream.Event[opened]("opened"), jetstream.Event[debited]("debited")),
		aggregate.Apply(func(*account, opened, jetstream.Meta) {}), aggregate.Apply(func(*account, debited, jetstream.Meta) {}), opens))
	differs("an event's name", fingerprinted[account](jetstream.NewSchema("account", jetstream.Event[opened]("begun"))))
	differs("an event's version", fingerprinted[account](jetstream.NewSchema("account",
		jetstream.Event[opened]("opened", jetstream.Version(2), jetstream.Upcast(func(o debited) opened { return opened(o) })))))
	differs("the schema's name", fingerprinted[account](jetstream.NewSchema("other", jetstream.Event[opened]("opened"))))
	{
		type account struct{ Cents int32 }
		differs("a field's type", fingerprinted[account](one))
	}
	{
		type account struct{ Euros int64 }
		differs("a field's name", fingerprinted[account](one))
	}
	{
		type account struct {
			Cents int64 `json:"cents"`
		}
		differs("a field's stored name", fingerprinted[account](one))
	}
	{
		type money int64
		type account struct{ Cents money }
		differs("a named number", fingerprinted[account](one))
	}
	{
		type money string
		type account struct{ Cents money }
		differs("a named text", fingerprinted[account](one))
	}
	{
		type money [2]int64
		type account struct{ Cents money }
		differs("a named pair", fingerprinted[account](one))
	}
	{
		type money [3]int64
		type account struct{ Cents money }
		differs("a named triple", fingerprinted[account](one))
	}
	{
		type account struct {
			Cents int64
			Next  *account
		}
		differs("one that holds itself", fingerprinted[account](one))
	}
	if a, b := fingerprinted[account](one), fingerprinted[account](one, aggregate.StateLimit(7)); a.Fingerprint() != b.Fingerprint() {
		t.Error("the limit is no part of it")
	}
	if f := aggregate.New[account](nil).Fingerprint(); f != "" {
		t.Error(f)
	}
}

var opens = aggregate.Create("open", func(c open, _ aggregate.Decision) ([]any, error) { return []any{opened(c)}, nil })

func fingerprinted[S any](schema *jetstream.Schema, more ...aggregate.Option) *aggregate.Type[S] {
	return aggregate.New[S](schema, append([]aggregate.Option{aggregate.Apply(func(*S, opened, jetstream.Meta) {}), opens}, more...)...)
}
