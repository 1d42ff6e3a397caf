package api

import "time"

// SetBodyTimeout is how long a request's body may take.
func (a *API) SetBodyTimeout(d time.Duration) { a.bodyTimeout = d }

// SetPatience is how long a request waits for NATS and for views, unless it says so
// itself. Before the API runs.
func (a *API) SetPatience(d time.Duration) { a.commandTimeout, a.afterWait, a.customerWait = d, d, d }
