// Package browser drives the console's page in a real browser, as people do.
package browser
