package opening_test

import (
	"testing"

	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/cmd/demo/internal/opening"
	"github.com/rossby-go/rossby/jetstream/schematest"
)

// What a bank has stored it can read for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	refused := saga.Failure{Step: opening.Open, Code: saga.CodeExists, Reason: "it is there"}
	schematest.Golden(t, saga.Events[opening.Application](opening.Name), "testdata/events",
		saga.StartedEvent[opening.Application]{
			Data: opening.Application{CustomerID: "c1", Title: "Savings", Payer: "house", BonusCents: 500},
		},
		saga.Begun{Step: opening.Reserve}, saga.Accepted{Step: opening.Open}, saga.Done{Step: opening.Pay},
		saga.Failed{Failure: refused}, saga.Expired{Step: opening.Open}, saga.Undoing{Step: opening.Reserve},
		saga.Undone{Step: opening.Reserve}, saga.UndoRefused{Failure: refused}, saga.CompletedEvent{},
		saga.CompensatedEvent{Failure: refused},
	)
}
