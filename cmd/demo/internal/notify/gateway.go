// Package notify tells the outside world about finished transfers: the gateway
// that does so, and the small web service that the demo tells.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
)

// GatewayName is the gateway's name, which begins its idempotency keys.
const GatewayName = "notifications"

// Notification is what the service is sent.
type Notification struct {
	TransferID string `json:"transferId"`
	transfer.Details
	State transfer.State `json:"state"`
}

// NewGateway makes the gateway that POSTs each finished transfer to the URL, with
// the idempotency key in the header of that name, and records with the transfer
// that it was sent.
func NewGateway(store *jetstream.Store, url string, client *http.Client, cfg gateway.Config) (*gateway.Gateway, error) {
	send := func(ctx context.Context, d gateway.Delivery, n Notification) error {
		n.TransferID = d.ID
		if err := post(ctx, client, url, d.IdempotencyKey, n); err != nil {
			return err
		}
		err := d.Command(ctx, gateway.Command{
			Type: transfer.Events.Type(), ID: d.ID, Name: "record-notification",
			Body: map[string]string{"key": d.IdempotencyKey},
		})
		if _, refused := errors.AsType[*gateway.CommandError](err); refused {
			return gateway.Permanent(err)
		}
		return err
	}
	return gateway.New(store, GatewayName, cfg,
		gateway.On(transfer.Events, func(ctx context.Context, e transfer.CreditRecorded, d gateway.Delivery) error {
			return send(ctx, d, Notification{Details: e.Details, State: transfer.Completed})
		}),
		gateway.On(transfer.Events, func(ctx context.Context, e transfer.DebitFailed, d gateway.Delivery) error {
			return send(ctx, d, Notification{Details: e.Details, State: transfer.Failed(e.Code)})
		}),
		gateway.On(transfer.Events, func(ctx context.Context, e transfer.Refunded, d gateway.Delivery) error {
			if e.Code == transfer.CodeTimedOut {
				return nil // its end, the time-out, has been told
			}
			return send(ctx, d, Notification{Details: e.Details, State: transfer.Failed(e.Code)})
		}),
		gateway.On(transfer.Events, func(ctx context.Context, e transfer.TimedOut, d gateway.Delivery) error {
			return send(ctx, d, Notification{Details: e.Details, State: transfer.FailedTimeout})
		}),
	)
}

// post sends the notification. What the service refuses for good is permanent;
// anything else, an unknown outcome too, is sent again with the same key.
func post(ctx context.Context, client *http.Client, url, key string, n Notification) error {
	body, err := json.Marshal(n)
	if err != nil {
		return gateway.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return gateway.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	switch {
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusRequestTimeout,
		resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode >= 500:
		return fmt.Errorf("notification service: %s", resp.Status)
	default:
		return gateway.Permanent(fmt.Errorf("notification service: %s", resp.Status))
	}
}
