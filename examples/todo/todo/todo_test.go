package todo_test

import (
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/aggregatetest"
	"github.com/rossby-go/rossby/examples/todo/todo"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

// TestTodo: what a to-do decides. What changes nothing leads to no event.
func TestTodo(t *testing.T) {
	t.Parallel()
	aggregatetest.Given(t, todo.Type).When(todo.Add{Title: " "}).Rejected("no-title")
	aggregatetest.Given(t, todo.Type).
		When(todo.Add{Title: " Buy milk "}).Then(todo.Added{Title: "Buy milk"}).
		When(todo.Add{Title: "Buy milk"}).Fails(aggregate.ErrExists).
		When(todo.Rename{Title: "Buy milk"}).Nothing().
		When(todo.Rename{Title: ""}).Rejected("no-title").
		When(todo.Rename{Title: "Buy oat milk"}).Then(todo.Renamed{Title: "Buy oat milk"}).
		When(todo.Complete{}).Then(todo.Completed{}).
		When(todo.Complete{}).Nothing().
		When(todo.Delete{}).Then(todo.Deleted{}).
		When(todo.Delete{}).Nothing().
		When(todo.Complete{}).Rejected("deleted").
		When(todo.Rename{Title: "Buy wine"}).Rejected("deleted").
		State(todo.Todo{Title: "Buy oat milk", Done: true, Deleted: true})
}

func TestItems(t *testing.T) {
	t.Parallel()
	projectiontest.New(t, todo.Items).
		Given(todo.Events, "milk", todo.Added{Title: "Buy milk"}, todo.Renamed{Title: "Buy oat milk"}).
		Given(todo.Events, "call", todo.Added{Title: "Call Ann"}, todo.Completed{}).
		Given(todo.Events, "old", todo.Added{Title: "Old"}, todo.Completed{}, todo.Deleted{}).
		Then(map[string]todo.Item{"milk": {Title: "Buy oat milk"}, "call": {Title: "Call Ann", Done: true}}).
		Finds("done", "yes", "call")
}

// TestDeleter: the reactor, without the rest. Each event is handled twice, as after a
// crash.
func TestDeleter(t *testing.T) {
	t.Parallel()
	store := aggregatetest.NewStore(t)
	todos := aggregatetest.NewRepository(store, todo.Type)
	bulks := aggregatetest.NewRepository(store, todo.BulkType)
	store.Run("bulk-deleter", todo.Deleter(todos, bulks))
	store.Append(todo.Events, "a", todo.Added{Title: "A"})
	store.Append(todo.Events, "b", todo.Added{Title: "B"}, todo.Deleted{})
	if _, err := bulks.Create(t.Context(), "1", todo.DeleteMany{IDs: []string{"b", "a", "none", "a"}}); err != nil {
		t.Fatal(err)
	}
	store.Settle()
	a, err := todos.Load(t.Context(), "a")
	if err != nil || !a.State.Deleted {
		t.Errorf("%+v, %v", a.State, err)
	}
	bulk, err := bulks.Load(t.Context(), "1")
	if want := (todo.Bulk{Finished: true, Result: todo.BulkFinished{Deleted: 2, Missing: 1}}); err != nil || bulk.State != want {
		t.Errorf("%+v, %v; want %+v", bulk.State, err, want)
	}
	aggregatetest.Given(t, todo.BulkType).
		When(todo.DeleteMany{IDs: make([]string, 2*todo.BulkMax)}).Then(todo.BulkRequested{IDs: []string{""}})
}
