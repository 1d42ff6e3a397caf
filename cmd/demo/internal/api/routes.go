package api

import (
	"net/http"
	"strings"
	"time"
)

// handler answers a request or says why it cannot.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes puts the API together.
func (a *API) routes(files http.Handler) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"POST /api/customers":                               a.createCustomer,
		"POST /api/accounts":                                a.openAccount,
		"DELETE /api/accounts/{id}":                         a.deleteAccount,
		"POST /api/transfers":                               a.createTransfer,
		"POST /api/customers/{id}/toaccounts":               a.addToAccount,
		"DELETE /api/customers/{id}/toaccounts/{accountId}": a.deleteToAccount,

		"GET /api/accounts":               a.listAccounts,
		"GET /api/accounts/{id}":          a.getAccount,
		"GET /api/accounts/{id}/history":  a.getHistory,
		"GET /api/transfers":              a.listTransfers,
		"GET /api/transfers/{id}":         a.getTransfer,
		"GET /api/customers":              a.findCustomers,
		"GET /api/customers/{id}":         a.getCustomer,
		"GET /api/status":                 a.getStatus,
		"GET /api/followers/{name}":       a.getFollower,
		"POST /api/followers/{name}/{do}": a.orderFollower,
	} {
		mux.Handle(pattern, a.wrap(a.online(h)))
	}
	mux.Handle("GET /healthz", a.wrap(a.healthz))
	mux.Handle("GET /readyz", a.wrap(a.readyz))
	mux.Handle("GET /events", a.wrap(a.events))
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(a.wrap(func(http.ResponseWriter, *http.Request) error {
		return &problem{Status: http.StatusForbidden, Code: "cross-origin", Detail: "this page may not change the bank"}
	}))
	return guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, pattern := mux.Handler(r)
		switch {
		case pattern != "":
			mux.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/api/"):
			a.unrouted(mux, w, r)
		default:
			a.static(mux, files, w, r)
		}
	}))
}

// wrap answers with a problem when the handler returns an error.
func (a *API) wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// online lets a request through while NATS is connected. A short interruption is
// waited out.
func (a *API) online(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		nc := a.cfg.Store.Conn()
		for end := time.Now().Add(reconnectWait); !nc.IsConnected(); {
			if nc.IsClosed() || time.Now().After(end) {
				return away("there is no connection to NATS: nothing was done")
			}
			if err := pause(r.Context(), 10*time.Millisecond); err != nil {
				return err
			}
		}
		return h(w, r)
	}
}

// static answers with a file of the page, if there is one.
func (a *API) static(mux *http.ServeMux, files http.Handler, w http.ResponseWriter, r *http.Request) {
	if routes, ok := files.(*http.ServeMux); ok {
		if _, pattern := routes.Handler(r); pattern == "" {
			if s := sniff(mux, r); s.status == http.StatusMethodNotAllowed {
				routes = mux // one of the routes beside the page's
			}
			a.unrouted(routes, w, r)
			return
		}
	}
	w.Header().Del("Cache-Control") // the page's own
	files.ServeHTTP(w, r)
}

// unrouted answers what no route takes, in the API's own words.
func (a *API) unrouted(mux http.Handler, w http.ResponseWriter, r *http.Request) {
	s := sniff(mux, r)
	switch {
	case s.status == http.StatusMethodNotAllowed:
		allow := s.header.Get("Allow")
		w.Header().Set("Allow", allow)
		a.fail(w, r, &problem{
			Status: s.status, Code: "method-not-allowed",
			Detail: "allowed here: " + allow,
		})
	case s.status >= 300 && s.status < 400: // a path with "//" or ".."
		http.Redirect(w, r, s.header.Get("Location"), s.status)
	default:
		a.fail(w, r, &problem{
			Status: http.StatusNotFound, Code: "no-such-route", Detail: "nothing is here; the API begins with /api/",
		})
	}
}

// sniff finds out what a handler would answer.
func sniff(h http.Handler, r *http.Request) *sniffer {
	s := &sniffer{header: http.Header{}}
	h.ServeHTTP(s, r)
	return s
}

// sniffer keeps what an answer would have been, without its body.
type sniffer struct {
	header http.Header
	status int
}

func (s *sniffer) Header() http.Header { return s.header }

func (s *sniffer) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(b), nil
}

func (s *sniffer) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

// clean makes text of a client fit for a header or a log line.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}
