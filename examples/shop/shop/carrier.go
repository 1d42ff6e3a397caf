package shop

import (
	"context"
	"errors"

	"github.com/rossby-go/rossby/gateway"
)

// ErrUndeliverable is what a [Carrier] returns for a parcel that it does not take.
var ErrUndeliverable = errors.New("the carrier does not deliver there")

// Carrier brings parcels. It is called again after a failure or a crash, with the same
// key: it must not take the same parcel twice.
type Carrier func(ctx context.Context, key string, parcel Packed) (tracking string, err error)

// Deliver hands each parcel to the carrier and reports to the order what came of it.
func Deliver(carrier Carrier) gateway.Option {
	return gateway.On(OrderEvents, func(ctx context.Context, e Packed, d gateway.Delivery) error {
		tracking, err := carrier(ctx, d.IdempotencyKey, e)
		report := Report{Tracking: tracking}
		if errors.Is(err, ErrUndeliverable) {
			report.Problem = err.Error()
		} else if err != nil {
			return err // tried again, with the same key
		}
		return d.Command(ctx, gateway.Command{Type: "order", ID: d.ID, Name: "report", Body: report})
	})
}
