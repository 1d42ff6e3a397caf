package saga_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/projectiontest"
)

// printer stands for the *testing.T of a test, and prints what it would report.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatalf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// A view of trips. It needs the saga's name and data, and neither its steps nor what
// they send commands to.
func ExampleEvents() {
	t := printer{} // in a test: t *testing.T

	type (
		Trip   struct{ Train string }
		Status struct{ Train, State string }
	)
	trips := saga.Events[Trip]("trip")
	view := projection.NewKeyed("trips",
		projection.On(trips, func(s *Status, e saga.StartedEvent[Trip], _ jetstream.Meta) {
			*s = Status{Train: e.Data.Train, State: "under way"}
		}),
		projection.On(trips, func(s *Status, _ saga.CompletedEvent, _ jetstream.Meta) { s.State = "booked" }),
		projection.On(trips, func(s *Status, e saga.CompensatedEvent, _ jetstream.Meta) { s.State = e.Failure.Code }),
	)
	projectiontest.New(t, view).
		Given(trips, "t1", saga.StartedEvent[Trip]{Data: Trip{Train: "express"}}, saga.CompletedEvent{}).
		Given(trips, "t2", saga.StartedEvent[Trip]{Data: Trip{Train: "express"}},
			saga.CompensatedEvent{Failure: saga.Failure{Code: "sold-out"}}).
		Then(map[string]Status{"t1": {"express", "booked"}, "t2": {"express", "sold-out"}})
	fmt.Println("that is what it shows")
	// Output: that is what it shows
}
