// Package monitor tells how the modules of a process are: OpenTelemetry metrics,
// and health and readiness over HTTP.
//
//	mon, err := monitor.New(monitor.Config{Store: store, MeterProvider: provider})
//	…
//	mon.Repository(accounts)
//	mon.Service(service)
//	mon.Updater(balances)
//	mon.Gateway(mails)
//	mux.Handle("GET /healthz", mon.Live())
//	mux.Handle("GET /readyz", mon.Ready())
//
// It reads what the modules count anyway, when it is asked: nothing runs in
// between, and the modules know nothing of it. docs/signals.md lists the metrics,
// and which of them to be woken by.
package monitor
