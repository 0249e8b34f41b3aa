// Package old is a program of five minor versions ago: client-go 0.32, against Knarr of today (Kubernetes 1.37).
package old
