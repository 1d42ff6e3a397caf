package api

import "time"

// SetTimeouts shortens what a request waits for.
func (a *API) SetTimeouts(body, command time.Duration) {
	a.bodyTimeout, a.commandTimeout = body, command
}
