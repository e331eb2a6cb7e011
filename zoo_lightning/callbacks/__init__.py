"""Lightning callbacks: gates' moving average, gate log, pictures, stopping without loss."""
