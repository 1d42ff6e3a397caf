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
