package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/projection"
)

// Account is an account without its history.
type Account struct {
	AccountID    string    `json:"accountId"`
	CustomerID   string    `json:"customerId,omitempty"`
	Title        string    `json:"title"`
	BalanceCents int64     `json:"balanceCents"`
	Active       bool      `json:"active"`
	OpenedAt     time.Time `json:"openedAt"`
}

// Bounds of lists.
const (
	accountsUsual  = 1000
	accountsMost   = 10_000
	transfersUsual = 50
	transfersMost  = 500
	customersUsual = 100
	customersMost  = 1000
)

// get answers with one entry of a view, or a part of it.
func get[V, Part any](a *API, reader *projection.Reader[V], part func(V) Part) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := pathID(r, "id")
		if err != nil {
			return err
		}
		ctx, cancel, after, err := a.after(r)
		if err != nil {
			return err
		}
		defer cancel()
		e, err := reader.Get(ctx, id, projection.AtLeast(after))
		setPosition(w, e.Position)
		if err != nil {
			return err
		}
		tag := e.ETag()
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache")
		if matches(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		return answer(w, http.StatusOK, part(e.Value))
	}
}

// matches tells whether an If-None-Match names the tag.
func matches(header, tag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t == "*" || t != "" && t == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

func (a *API) getAccount(w http.ResponseWriter, r *http.Request) error {
	return get(a, a.cfg.AccountViews, func(v views.Account) views.Account { return v })(w, r)
}

func (a *API) getHistory(w http.ResponseWriter, r *http.Request) error {
	return get(a, a.cfg.AccountViews, func(v views.Account) map[string]any {
		return map[string]any{"accountId": v.AccountID, "history": v.History}
	})(w, r)
}

func (a *API) getTransfer(w http.ResponseWriter, r *http.Request) error {
	return get(a, a.cfg.TransferViews, func(v views.Transfer) views.Transfer { return v })(w, r)
}

func (a *API) getCustomer(w http.ResponseWriter, r *http.Request) error {
	return get(a, a.cfg.CustomerViews, func(v views.Customer) views.Customer { return v })(w, r)
}

// accounts reads the accounts without their histories.
func (a *API) accounts(ctx context.Context) (*projection.Reader[Account], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.briefs == nil {
		v := a.cfg.AccountViews
		r, err := projection.NewReader[Account](ctx, a.cfg.Store.Conn(), v.Store(), v.View(),
			projection.ReaderConfig{OpenWait: a.afterWait})
		if err != nil {
			return nil, err
		}
		a.briefs = r
	}
	return a.briefs, nil
}

func (a *API) listAccounts(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, accountsUsual, accountsMost)
	if err != nil {
		return err
	}
	reader, err := a.accounts(r.Context())
	if err != nil {
		return err
	}
	list, err := collect(a, w, r, reader, n, func(Account) bool { return true })
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"accounts": list})
}

func (a *API) findCustomers(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, customersUsual, customersMost)
	if err != nil {
		return err
	}
	part := strings.ToLower(r.URL.Query().Get("email"))
	list, err := collect(a, w, r, a.cfg.CustomerViews, n, func(c views.Customer) bool {
		return strings.Contains(strings.ToLower(c.Email), part)
	})
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{"customers": list})
}

// collect reads the first entries of a view that fit.
func collect[V any](
	a *API, w http.ResponseWriter, r *http.Request, reader *projection.Reader[V], n int, fits func(V) bool,
) ([]V, error) {
	ctx, cancel, after, err := a.after(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	list := []V{}
	for e, err := range reader.List(ctx, projection.ListOptions{AtLeast: after}) {
		if err != nil {
			return nil, err
		}
		if w.Header().Get(headerPosition) == "" {
			setPosition(w, e.Position) // later pages are not older
		}
		if fits(e.Value) {
			list = append(list, e.Value)
		}
		if len(list) == n {
			break
		}
	}
	return list, nil
}

// listTransfers answers with the newest transfers, which [API.Run] keeps at hand:
// a view has no order but that of its changes.
func (a *API) listTransfers(w http.ResponseWriter, r *http.Request) error {
	n, err := limit(r, transfersUsual, transfersMost)
	if err != nil {
		return err
	}
	list, ready := a.hub.newestTransfers(n)
	if !ready {
		return notReady("the transfers are still being read")
	}
	return answer(w, http.StatusOK, map[string]any{"transfers": list})
}
