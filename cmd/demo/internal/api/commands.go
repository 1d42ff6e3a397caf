package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// customerDone, accountDone and transferDone answer commands.
type (
	customerDone struct {
		CustomerID string             `json:"customerId"`
		AccountID  string             `json:"accountId,omitempty"`
		Position   jetstream.Position `json:"position"`
	}
	accountOpened struct {
		AccountID    string             `json:"accountId"`
		BalanceCents int64              `json:"balanceCents"`
		Position     jetstream.Position `json:"position"`
	}
	accountDone struct {
		AccountID string             `json:"accountId"`
		Position  jetstream.Position `json:"position"`
	}
	transferDone struct {
		TransferID string             `json:"transferId"`
		Position   jetstream.Position `json:"position"`
	}
)

func (a *API) createCustomer(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CustomerID string `json:"customerId"`
		commands.CreateCustomer
	}
	if err := errors.Join(a.read(w, r, &in), optionalID("customerId", in.CustomerID)); err != nil {
		return err
	}
	res, err := a.create(w, r, a.cfg.Customers, in.CustomerID, in.CreateCustomer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/customers/"+url.PathEscape(res.ID))
	return answer(w, http.StatusCreated, customerDone{CustomerID: res.ID, Position: res.Position})
}

func (a *API) openAccount(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		AccountID string `json:"accountId"`
		commands.OpenAccount
	}
	if err := a.read(w, r, &in); err != nil {
		return err
	}
	if err := errors.Join(optionalID("accountId", in.AccountID), optionalID("customerId", in.CustomerID)); err != nil {
		return err
	}
	if err := a.knownCustomer(r.Context(), in.CustomerID); err != nil {
		return err
	}
	res, err := a.create(w, r, a.cfg.Accounts, in.AccountID, in.OpenAccount)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/accounts/"+url.PathEscape(res.ID))
	return answer(w, http.StatusCreated, accountOpened{
		AccountID: res.ID, BalanceCents: in.InitialCents, Position: res.Position,
	})
}

// knownCustomer refuses an owner that does not exist. A view that lacks the
// customer proves nothing until it has reached where the store ends now, so it is
// asked again then: a customer made a moment ago is found.
func (a *API) knownCustomer(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.customerWait)
	defer cancel()
	_, err := a.cfg.CustomerViews.Get(ctx, id)
	if !errors.Is(err, projection.ErrNotFound) {
		return err
	}
	head, err := a.cfg.Store.LastPosition(ctx)
	if err != nil {
		return err
	}
	_, err = a.cfg.CustomerViews.Get(ctx, id, projection.AtLeast(head))
	if errors.Is(err, projection.ErrNotFound) {
		return aggregate.Reject("unknown-customer", "there is no customer %q", id)
	}
	return err
}

func (a *API) deleteAccount(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	res, err := a.update(w, r, a.cfg.Accounts, id, commands.DeleteAccount{})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, accountDone{AccountID: id, Position: res.Position})
}

func (a *API) createTransfer(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		TransferID string `json:"transferId"`
		commands.CreateTransfer
	}
	if err := errors.Join(a.read(w, r, &in), optionalID("transferId", in.TransferID)); err != nil {
		return err
	}
	res, err := a.create(w, r, a.cfg.Transfers, in.TransferID, in.CreateTransfer)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/transfers/"+url.PathEscape(res.ID))
	return answer(w, http.StatusAccepted, transferDone{TransferID: res.ID, Position: res.Position})
}

func (a *API) addToAccount(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	var in commands.AddToAccount
	if err := a.read(w, r, &in); err != nil {
		return err
	}
	res, err := a.update(w, r, a.cfg.Customers, id, in)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, customerDone{CustomerID: id, AccountID: in.AccountID, Position: res.Position})
}

func (a *API) deleteToAccount(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	account, err := pathID(r, "accountId")
	if err != nil {
		return err
	}
	res, err := a.update(w, r, a.cfg.Customers, id, commands.DeleteToAccount{AccountID: account})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, customerDone{CustomerID: id, AccountID: account, Position: res.Position})
}
