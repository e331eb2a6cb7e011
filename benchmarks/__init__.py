"""Speed and memory, as ratios that hold on other machines too."""
