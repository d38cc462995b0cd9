//go:build tools

// Package kwok pins, by its go.mod and go.sum, the kwok that keeps the benchmark's Nodes alive.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
