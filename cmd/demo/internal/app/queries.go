package app

import (
	"context"

	"github.com/rossby-go/rossby/projection"
)

// serveQueries answers questions about the views over request-reply.
func (a *App) serveQueries(ctx context.Context) error {
	r, err := a.open(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	//nolint:contextcheck // the service ends with Stop, after its last answer
	svc, err := projection.NewQueryService(a.cfg.Conn, projection.QueryConfig{Name: StoreName + "-query"},
		r.accounts, r.customers, r.transfers, r.ledger)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return svc.Stop()
}
