"""Lightning callbacks: gates' average and log, gradients, pictures, stopping without loss."""
