// Package natstest starts NATS servers for tests: one unreplicated server, or a
// cluster of three in this process. It links nats-server, so only tests import
// it.
package natstest
